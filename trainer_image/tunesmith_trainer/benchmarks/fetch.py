"""``tunesmith-trainer fetch-tasks``: put the data of a benchmark into a folder.

May be interrupted and run again: a file is there whole or not at all, what is there is kept, and
the manifest never lists what is not there.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import uuid
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.trainer_contract import HUB_TOKEN_VARIABLE, Reason

from tunesmith_trainer.benchmarks.prepared import (
    MANIFEST_FILE,
    Manifest,
    PreparedDataset,
    SplitFile,
    data_missing,
    read_manifest,
    read_split,
    sha256_of,
)
from tunesmith_trainer.benchmarks.tasks import (
    NeededDataset,
    lm_eval_version,
    load_tasks,
)
from tunesmith_trainer.failure import TrainerError, first_line
from tunesmith_trainer.output.folder import (
    STAGING_PREFIX,
    FolderStore,
    make_durable,
    output_errors,
    write_whole,
)

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

log = logging.getLogger(__name__)


def fetch(task: str, output: Path, source: Path | None = None) -> Manifest:
    """Fill ``output`` with what the task reads, from the hub or from a copy of it in ``source``.

    ``source`` holds repositories as the hub has them: <organisation>/<name>/README.md and files.
    Raises TrainerError for an unknown task, an unreachable hub, and a folder that cannot be
    written.
    """
    FolderStore(str(output), output).require_writable()
    with tempfile.TemporaryDirectory() as cache:
        fetcher = Fetcher(task, output, source, Path(cache), known(output))
        load_tasks(task, None, fetcher.load)
        fetcher.finish()
    rows = sum(split.rows for each in fetcher.manifest.datasets for split in each.splits.values())
    log.info("%s: %d rows in %s, ready for benchmark.data", task, rows, output)
    return fetcher.manifest


def known(output: Path) -> Manifest:
    """What earlier runs have left."""
    try:
        manifest = read_manifest(output)
    except ValueError as error:
        log.warning("%s: starting again", error)
        manifest = None
    return manifest or Manifest(lm_eval_version=lm_eval_version())


@dataclass
class Fetcher:
    """Hands a task its data, and keeps what it hands out."""

    task: str
    output: Path
    source: Path | None
    cache: Path
    manifest: Manifest
    #: How many datasets are done, for the log.
    done: int = field(default=0)

    def load(self, needed: NeededDataset) -> DatasetDict:
        from datasets import DatasetDict

        prepared = self._kept(needed) or self._fetched(needed)
        self.done += 1
        rows = ", ".join(f"{split.rows} {name}" for name, split in prepared.splits.items())
        log.info("%s: dataset %d, %s: rows %s", self.task, self.done, needed, rows)
        return DatasetDict(
            {
                split: read_split(self.output / prepared.splits[split].file)
                for split in needed.splits
            }
        )

    def finish(self) -> None:
        tasks = sorted({*self.manifest.tasks, self.task})
        self._write(self.manifest.model_copy(update={"tasks": tasks}))

    def _kept(self, needed: NeededDataset) -> PreparedDataset | None:
        """What an earlier run has fetched, if it is all there."""
        for each in self.manifest.datasets:
            if each.answers(needed) and set(needed.splits) <= set(each.splits):
                files = [(self.output / split.file, split.sha256) for split in each.splits.values()]
                if all(path.is_file() and sha256_of(path) == digest for path, digest in files):
                    return each
        return None

    def _fetched(self, needed: NeededDataset) -> PreparedDataset:
        revision, dataset = self._read(needed)
        absent = [split for split in needed.splits if split not in dataset]
        if absent:
            raise data_missing(self.task, f"{needed} has no split {absent[0]}, only {[*dataset]}")
        prepared = PreparedDataset(
            path=needed.path,
            name=needed.name,
            revision=revision,
            splits={split: self._store(needed, split, dataset[split]) for split in needed.splits},
        )
        others = [each for each in self.manifest.datasets if not each.answers(needed)]
        self._write(self.manifest.model_copy(update={"datasets": [*others, prepared]}))
        return prepared

    def _read(self, needed: NeededDataset) -> tuple[str | None, DatasetDict]:
        """The dataset and the commit it is from."""
        from datasets import load_dataset

        if self.source is None:
            revision = needed.options.get("revision") or hub_revision(needed.path)
            return revision, load_from_hub(needed, revision)
        folder = self.source / needed.path
        if not folder.is_dir():
            raise TrainerError(
                Reason.BENCHMARK_DATA_MISSING,
                f"{folder} is missing: put the hub's repository {needed.path} there, as "
                f"`huggingface-cli download --repo-type dataset {needed.path}` gives it",
            )
        options = {key: value for key, value in needed.options.items() if key != "revision"}
        try:
            return None, load_dataset(
                str(folder), needed.name, cache_dir=str(self.cache), **options
            )
        except (OSError, ValueError) as error:
            raise TrainerError(
                Reason.BENCHMARK_DATA_MISSING,
                f"{folder} cannot be read as the hub's {needed} ({first_line(error)}): copy the "
                "whole repository, with its README.md",
            ) from error

    def _store(self, needed: NeededDataset, split: str, rows: Dataset) -> SplitFile:
        parts = [needed.path, needed.name or "default"]
        folder = Path(*(re.sub(r"[^A-Za-z0-9._-]+", "--", part) for part in parts))
        path = self.output / folder / f"{split}.parquet"
        staging = path.parent / f"{STAGING_PREFIX}{uuid.uuid4().hex}"
        with output_errors(str(self.output)):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                rows.to_parquet(str(staging))
                staging.chmod(0o644)
                make_durable(staging)
                staging.rename(path)
            finally:
                staging.unlink(missing_ok=True)
        return SplitFile(file=str(folder / path.name), sha256=sha256_of(path), rows=len(rows))

    def _write(self, manifest: Manifest) -> None:
        self.manifest = manifest.model_copy(update={"lm_eval_version": lm_eval_version()})
        text = self.manifest.model_dump_json(by_alias=True, exclude_none=True, indent=2)
        with output_errors(str(self.output)):
            write_whole(self.output / MANIFEST_FILE, f"{text}\n")


@lru_cache
def hub_revision(path: str) -> str | None:
    """The newest commit of a repository; None for what is no repository, such as "json"."""
    from huggingface_hub import HfApi

    if "/" not in path:
        return None
    try:
        found = HfApi().dataset_info(path, token=os.environ.get(HUB_TOKEN_VARIABLE)).sha
    except Exception as error:
        raise unreachable(path, error) from error
    return str(found)


def load_from_hub(needed: NeededDataset, revision: str | None) -> DatasetDict:
    """Raises TrainerError(HUB_UNREACHABLE)."""
    from datasets import load_dataset

    options = {**needed.options, **({"revision": revision} if revision else {})}
    try:
        return load_dataset(needed.path, needed.name, **options)
    except (OSError, ValueError) as error:
        raise unreachable(needed.path, error) from error


def unreachable(path: str, error: Exception) -> TrainerError:
    return TrainerError(
        Reason.HUB_UNREACHABLE,
        f"{path} cannot be fetched from the Hugging Face Hub ({first_line(error)}): allow it to be "
        "reached, set HF_ENDPOINT to a mirror, or copy the repository and name the folder above it "
        "with --from",
    )
