"""Finding what the plan names: a mounted path, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from tunesmith.api.digests import ADAPTER_FILES, adapter_digest
from tunesmith.api.locations import Location, parse_location
from tunesmith.api.trainer_contract import (
    HUB_TOKEN_VARIABLE,
    PlannedDataset,
    PlannedSource,
    Reason,
)

from tunesmith_trainer.failure import TrainerError

log = logging.getLogger(__name__)

#: What a model in safetensors needs; weights in other formats are left where they are.
MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model", "*.tiktoken"]
HUB_DATASETS = "datasets/"


def model_folder(source: PlannedSource, field: str = "baseModel.uri") -> Path:
    """The folder of a model, downloaded if it is on the hub; ``field`` is where a user wrote it."""
    folder = Path(source.path) if source.path else download_model(source.uri)
    if not folder.is_dir():
        raise TrainerError(
            Reason.MODEL_NOT_FOUND,
            f"{source.uri} does not exist: there is no folder {folder.name!r} in that place. "
            f"Correct {field}, or put the model there",
        )
    if not (folder / "config.json").is_file():
        raise TrainerError(
            Reason.MODEL_NOT_FOUND,
            f"{source.uri} holds no model: looked for config.json and *.safetensors and found "
            f"{listed(folder)}. Correct {field}, or put the model there",
        )
    if not any(folder.glob("*.safetensors")):
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{source.uri} has no *.safetensors, only {listed(folder)}: save the model with "
            "save_pretrained() of transformers, which writes that format",
        )
    return folder


def dataset_file(source: PlannedDataset, field: str = "dataset.uri") -> Path:
    """The file of a dataset, downloaded if it is on the hub; ``field`` is where a user wrote it."""
    path = Path(source.path) if source.path else download_dataset(source.uri)
    if path.is_file():
        return path
    found = "a folder" if path.is_dir() else f"no such file; its folder has {listed(path.parent)}"
    raise TrainerError(
        Reason.DATASET_NOT_FOUND,
        f"{source.uri}: {found}. Put the .jsonl file there, or correct {field}",
    )


def mounted(source: PlannedSource) -> Path:
    """The folder of something that must be on a volume of this pod."""
    if source.path is None:
        raise TrainerError(Reason.INTERNAL, f"the plan names no path for {source.uri}")
    return Path(source.path)


def adapter_folder(source: PlannedSource, digest: str) -> Path:
    """The folder of an adapter. Raises TrainerError unless it holds the one with this digest."""
    folder = mounted(source)
    try:
        found = adapter_digest(folder)
    except OSError as error:
        raise TrainerError(
            Reason.ADAPTER_NOT_FOUND,
            f"{source.uri} holds no adapter: looked for "
            f"{' and '.join(ADAPTER_FILES)} and found {listed(folder)}",
        ) from error
    if found != digest:
        raise TrainerError(
            Reason.ADAPTER_CHANGED,
            f"{source.uri} holds an adapter with digest {found}, not "
            f"{digest}: it was changed after it was published. Train it again, or "
            "name the new digest",
        )
    return folder


def listed(folder: Path, limit: int = 5) -> str:
    """What lies in a folder, for a message."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return "nothing (the folder does not exist)"
    shown = ", ".join(names[:limit]) or "nothing"
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def download_model(uri: str) -> Path:
    from huggingface_hub import snapshot_download

    location = parse_location(uri)
    log.info("downloading %s", uri)
    return from_hub(
        location,
        Reason.MODEL_NOT_FOUND,
        lambda: snapshot_download(
            location.holder,
            revision=location.revision,
            allow_patterns=MODEL_FILES,
            token=os.environ.get(HUB_TOKEN_VARIABLE),
        ),
    )


def download_dataset(uri: str) -> Path:
    from huggingface_hub import hf_hub_download

    location = parse_location(uri)
    log.info("downloading %s", uri)
    return from_hub(
        location,
        Reason.DATASET_NOT_FOUND,
        lambda: hf_hub_download(
            location.holder.removeprefix(HUB_DATASETS),
            location.path,
            repo_type="dataset",
            revision=location.revision,
            token=os.environ.get(HUB_TOKEN_VARIABLE),
        ),
    )


def from_hub(location: Location, missing: Reason, download: Callable[[], str]) -> Path:
    """Run a download; what can go wrong becomes a sentence."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(download())
    except GatedRepoError as error:
        raise TrainerError(
            missing,
            f"{location} is gated: accept its licence on the hub and name a Secret with a token "
            f"of that account under {HUB_TOKEN_VARIABLE} in secretRef",
        ) from error
    except RevisionNotFoundError as error:
        raise TrainerError(
            missing, f"{location} has no revision {location.revision!r}: correct the part after @"
        ) from error
    except RepositoryNotFoundError as error:
        raise TrainerError(
            missing,
            f"the hub has no repository {location.holder!r}, or it is private: correct the uri, or "
            f"name a Secret with {HUB_TOKEN_VARIABLE} in secretRef",
        ) from error
    except LocalEntryNotFoundError as error:  # is an EntryNotFoundError: keep it first
        raise unreachable(location, error) from error
    except EntryNotFoundError as error:
        raise TrainerError(
            missing, f"{location.holder} has no file {location.path!r}: correct the uri"
        ) from error
    except OSError as error:  # every error of the connection and of the server is one
        raise unreachable(location, error) from error


def unreachable(location: Location, error: Exception) -> TrainerError:
    said = next(iter(str(error).splitlines()), type(error).__name__)
    return TrainerError(
        Reason.HUB_UNREACHABLE,
        f"the hub could not be reached for {location} ({said}): allow the pods to reach it, set "
        "HF_ENDPOINT to a mirror, or put the files on a claim and use pvc://",
    )
