"""A folder with the data of benchmarks: parquet files, and a manifest that lists them.

``tunesmith-trainer fetch-tasks`` writes it; an evaluation without a network reads it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError
from tunesmith.api.schema import ApiModel
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.benchmarks.tasks import NeededDataset
from tunesmith_trainer.failure import TrainerError, first_line

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

MANIFEST_FILE = "manifest.json"


class SplitFile(ApiModel):
    """One split of a dataset."""

    file: str
    sha256: str
    rows: int


class PreparedDataset(ApiModel):
    """One part of a repository of the hub."""

    path: str
    name: str | None = None
    #: Commit of the hub's repository; unset if the data came from a folder.
    revision: str | None = None
    splits: dict[str, SplitFile]

    def answers(self, needed: NeededDataset) -> bool:
        return (self.path, self.name) == (needed.path, needed.name)


class Manifest(ApiModel):
    """What a folder holds. Several tasks may share one."""

    tasks: list[str] = Field(default_factory=list)
    lm_eval_version: str
    datasets: list[PreparedDataset] = Field(default_factory=list)


def read_manifest(folder: Path) -> Manifest | None:
    """None if there is none. Raises ValueError if it is no manifest."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ValueError(f"{MANIFEST_FILE} cannot be read ({first_line(error)})") from error


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_split(path: Path) -> Dataset:
    from datasets import Dataset
    from pyarrow import parquet  # type: ignore[import-not-found,unused-ignore]

    # Not load_dataset: it would first copy every file into its cache.
    return Dataset(parquet.read_table(path))


@dataclass(frozen=True)
class PreparedData:
    """The folder as an evaluation reads it. Nothing is used whose checksum is not right."""

    folder: Path
    #: What the user called the folder.
    uri: str
    task: str

    def load(self, needed: NeededDataset) -> DatasetDict:
        """Raises TrainerError(BENCHMARK_DATA_MISSING), naming the file."""
        from datasets import DatasetDict

        found = next((each for each in self._manifest().datasets if each.answers(needed)), None)
        if found is None:
            raise self._missing(f"{MANIFEST_FILE} does not list {needed}")
        return DatasetDict(
            {split: read_split(self._checked(found, split)) for split in needed.splits}
        )

    def _manifest(self) -> Manifest:
        try:
            manifest = read_manifest(self.folder)
        except (OSError, ValueError) as error:
            raise self._missing(first_line(error)) from error
        if manifest is None:
            raise self._missing(f"{MANIFEST_FILE} is missing")
        return manifest

    def _checked(self, dataset: PreparedDataset, split: str) -> Path:
        listed = dataset.splits.get(split)
        if listed is None:
            raise self._missing(f"{MANIFEST_FILE} lists no split {split} of {dataset.path}")
        path = self.folder / listed.file
        if not path.is_file():
            raise self._missing(f"{listed.file} is missing")
        if sha256_of(path) != listed.sha256:
            raise self._missing(f"{listed.file} is not what {MANIFEST_FILE} lists (its sha256)")
        return path

    def _missing(self, what: str) -> TrainerError:
        return data_missing(self.task, f"{self.uri}: {what}")


def data_missing(task: str, what: str) -> TrainerError:
    return TrainerError(
        Reason.BENCHMARK_DATA_MISSING,
        f"{what}. Run `{remedy(task)}` where the Hugging Face Hub can be reached, and name that "
        "folder, on a claim, in benchmark.data",
    )


def remedy(task: str) -> str:
    """The command that prepares the data."""
    return f"tunesmith-trainer fetch-tasks --task {task} --output FOLDER"
