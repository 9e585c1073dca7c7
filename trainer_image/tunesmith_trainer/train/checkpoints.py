"""Checkpoints on the output store: whole or not there, checked before they are trusted.

``<output>/checkpoints/<identity>/step-<n>/`` holds what an attempt needs to go on from step n, and
a manifest with the sha256 of every file. The identity is of the result: attempts that differ only
in how the work is cut and where it runs share their checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from tunesmith.api.digests import file_digest
from tunesmith.api.schema import ApiModel
from tunesmith.api.trainer_contract import CHECKPOINTS_FOLDER, TrainingPlan

from tunesmith_trainer.lineage import now
from tunesmith_trainer.output import OutputStore, staged

log = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"
ATTEMPTS_FILE = "attempts.json"
#: Besides the best one: if the last was broken by the node's end, the one before it is whole.
KEPT = 2
PREFIX = "step-"

#: Of a plan, what may differ between attempts that make the same result.
HOW_NOT_WHAT: dict[str, tuple[str, ...]] = {
    "": ("image", "nodes", "processes_per_node", "rendezvous", "report_to", "oci"),
    "training": (
        "micro_batch_size",
        "activation_checkpointing",
        "parallelism",
        "checkpoint_minutes",
    ),
}
#: Of a memory plan, what the result does depend on.
WHAT_OF_MEMORY = {"method", "optimizer"}


def result_identity(plan: TrainingPlan) -> str:
    """sha256 of the plan without what may change from one attempt to the next.

    Halving the micro-batch after running out of memory keeps it, as does another number of GPUs.
    """
    raw = plan.model_dump(mode="json", exclude=set(HOW_NOT_WHAT[""]))
    raw["training"] = {
        name: value
        for name, value in raw["training"].items()
        if name not in HOW_NOT_WHAT["training"]
    }
    raw["memory"] = {name: raw["memory"][name] for name in sorted(WHAT_OF_MEMORY)}
    raw["effective_batch"] = effective_batch(plan)
    canonical = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def effective_batch(plan: TrainingPlan) -> int:
    """Sequences per optimiser step, over all processes."""
    memory = plan.memory
    return memory.micro_batch_size * memory.gradient_accumulation * memory.processes


class Manifest(ApiModel):
    """What a checkpoint holds, and what wrote it."""

    step: int
    base_model_digest: str
    #: sha256 by name of file.
    files: dict[str, str]
    micro_batch_size: int
    processes: int
    written_at: str


class Attempt(ApiModel):
    """One go at the result."""

    number: int
    started_at: str
    #: Step that it went on from; 0 from the beginning.
    from_step: int
    micro_batch_size: int
    processes: int


class Attempts(ApiModel):
    """The content of attempts.json."""

    attempts: list[Attempt]


@dataclass(frozen=True)
class Checkpoint:
    """One that was found whole."""

    folder: Path
    manifest: Manifest

    @property
    def step(self) -> int:
        return self.manifest.step


@dataclass(frozen=True)
class Checkpoints:
    """Those of one result."""

    store: OutputStore
    base_model_digest: str

    def save(self, step: int, write: Callable[[Path], None], cut: tuple[int, int]) -> None:
        """Let ``write`` fill a folder, and make it appear in one step.

        ``cut`` is micro-batch and processes, for people who look.
        """
        with staged(self.store, f"{PREFIX}{step}") as folder:
            write(folder)
            files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
            micro_batch_size, processes = cut
            manifest = Manifest(
                step=step,
                base_model_digest=self.base_model_digest,
                files=files,
                micro_batch_size=micro_batch_size,
                processes=processes,
                written_at=now(),
            )
            text = json.dumps(manifest.to_json(), indent=2) + "\n"
            (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")

    def steps(self) -> list[int]:
        """Of all that are there, oldest first; not all need be whole."""
        names = (name.removeprefix(PREFIX) for name in self.store.names() if PREFIX in name)
        return sorted(int(name) for name in names if name.isdigit())

    def newest(self) -> Checkpoint | None:
        """The newest whole one. Broken ones are passed over, with a line in the log."""
        for step in reversed(self.steps()):
            found = self.at(step)
            if found is not None:
                return found
        return None

    def at(self, step: int) -> Checkpoint | None:
        """The checkpoint of a step, if it is whole."""
        name = f"{PREFIX}{step}"
        folder = self.store.folder(name)
        problem = "a part of it is missing"
        if folder is not None:
            try:
                manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
                problem = self._problem(folder, manifest)
                if not problem:
                    return Checkpoint(folder, manifest)
            except (OSError, ValidationError) as error:
                problem = str(error).splitlines()[0]
        log.warning("checkpoint %s/%s is passed over: %s", self.store.uri, name, problem)
        return None

    def _problem(self, folder: Path, manifest: Manifest) -> str:
        if manifest.base_model_digest != self.base_model_digest:
            return f"it was made from another base model ({manifest.base_model_digest})"
        for name, digest in manifest.files.items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if file_digest(folder / name) != digest:
                return f"{name} is not what was written"
        return ""

    def prune(self, best: int | None) -> None:
        """Keep the newest ones and the best one."""
        steps = self.steps()
        for step in set(steps) - set(steps[-KEPT:]) - {best}:
            self.store.remove(f"{PREFIX}{step}")

    def attempts(self) -> list[Attempt]:
        """Those that have started so far; none if nobody can tell."""
        record = self.store.read(ATTEMPTS_FILE)
        try:
            return Attempts.model_validate_json(record).attempts if record else []
        except ValidationError:
            return []

    def begin(self, from_step: int, cut: tuple[int, int]) -> list[Attempt]:
        """Note that an attempt starts; gives all of them, this one last."""
        before = self.attempts()
        micro_batch_size, processes = cut
        attempt = Attempt(
            number=len(before) + 1,
            started_at=now(),
            from_step=from_step,
            micro_batch_size=micro_batch_size,
            processes=processes,
        )
        record = Attempts(attempts=[*before, attempt])
        self.store.write(ATTEMPTS_FILE, json.dumps(record.to_json(), indent=2) + "\n")
        return record.attempts


def checkpoints_of(output: OutputStore, identity: str, base_model_digest: str) -> Checkpoints:
    name = f"{CHECKPOINTS_FOLDER}/{short(identity)}"
    return Checkpoints(output.within(name), base_model_digest)


def forget(output: OutputStore, identity: str) -> None:
    """Delete them all, once the result is published."""
    output.within(CHECKPOINTS_FOLDER).remove(short(identity))


def short(identity: str) -> str:
    return identity.removeprefix("sha256:")[:16]
