"""Where an adapter comes from: enough to make it again, and to tell whether it was changed."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.schema import ApiModel
from tunesmith.api.trainer_contract import TrainingPlan, plan_digest

LIBRARIES = (
    *("tunesmith", "torch", "transformers", "trl", "peft", "accelerate", "datasets"),
    *("bitsandbytes", "liger-kernel", "unsloth", "safetensors", "tokenizers"),
)


#: A folder of the hub's cache.
SNAPSHOTS = "snapshots"


class BaseModelLineage(ApiModel):
    uri: str
    digest: str
    #: Commit of the hub repository; unset for models from elsewhere.
    revision: str | None = None


class DevSliceLineage(ApiModel):
    """The training rows by whose loss the best epoch was chosen. They were not trained on, and no
    held-out row is among them."""

    rows: int
    digest: str


class RunLineage(ApiModel):
    """How the result came about."""

    attempts: int
    #: Step that the last attempt went on from; 0 if it began anew.
    resumed_from_step: int
    #: Step whose weights were published, and the last one that was trained.
    published_step: int
    last_step: int
    stopped_early: bool
    processes: int
    #: Measured: the most memory of the first process, and its tokens per second times processes.
    peak_memory_bytes: int | None = None
    tokens_per_second: float | None = None


class Lineage(ApiModel):
    """The content of lineage.json."""

    owner: str
    base_model: BaseModelLineage
    dataset_uri: str
    dataset: DatasetReceipt
    dev_slice: DevSliceLineage
    run: RunLineage
    plan_digest: str
    #: The whole plan: method, hyperparameters and seeds.
    plan: TrainingPlan
    image: str
    libraries: dict[str, str]
    device: str
    compute_type: str
    started_at: str
    finished_at: str


def lineage_of(
    plan: TrainingPlan,
    base_model: BaseModelLineage,
    dev_slice: DevSliceLineage,
    run: RunLineage,
    *,
    device: str,
    compute_type: str,
    started_at: str,
) -> Lineage:
    return Lineage(
        owner=plan.owner,
        base_model=base_model,
        dataset_uri=plan.dataset_uri,
        dataset=plan.dataset,
        dev_slice=dev_slice,
        run=run,
        plan_digest=plan_digest(plan),
        plan=plan,
        image=plan.image,
        libraries=library_versions(),
        device=device,
        compute_type=compute_type,
        started_at=started_at,
        finished_at=now(),
    )


def library_versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout
            continue
    return found


def hub_revision(path: Path) -> str | None:
    """The commit of what the hub's cache has, whatever branch or tag was asked for.

    The cache keeps it in ``<repository>/snapshots/<commit>``, beside ``<repository>/refs``.
    """
    parts = path.parts
    if SNAPSHOTS not in parts[:-1]:
        return None
    last = len(parts) - 1 - parts[::-1].index(SNAPSHOTS)
    return parts[last + 1] if last + 1 < len(parts) else None


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
