"""Repositories of the Hugging Face Hub. Downloads are in the hub's own cache, by commit."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tunesmith.api.credentials import HUB_TOKEN, credential
from tunesmith.api.locations import Location
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError, first_line

log = logging.getLogger(__name__)

HUB_DATASETS = "datasets/"


def download_model(location: Location, credentials: str | None, files: Sequence[str]) -> Path:
    """The folder of a repository's files that match one of the patterns."""
    from huggingface_hub import snapshot_download

    log.info("downloading %s", location)
    return from_hub(
        location,
        Reason.MODEL_NOT_FOUND,
        lambda: snapshot_download(
            location.holder,
            revision=location.revision,
            allow_patterns=list(files),
            token=credential(os.environ, credentials, HUB_TOKEN),
        ),
    )


def download_dataset(location: Location, credentials: str | None) -> Path:
    """One file of a dataset's repository."""
    from huggingface_hub import hf_hub_download

    log.info("downloading %s", location)
    return from_hub(
        location,
        Reason.DATASET_NOT_FOUND,
        lambda: hf_hub_download(
            location.holder.removeprefix(HUB_DATASETS),
            location.path,
            repo_type="dataset",
            revision=location.revision,
            token=credential(os.environ, credentials, HUB_TOKEN),
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
            f"of that account under {HUB_TOKEN} in secretRef",
        ) from error
    except RevisionNotFoundError as error:
        raise TrainerError(
            missing, f"{location} has no revision {location.revision!r}: correct the part after @"
        ) from error
    except RepositoryNotFoundError as error:
        raise TrainerError(
            missing,
            f"the hub has no repository {location.holder!r}, or it is private: correct the uri, or "
            f"name a Secret with {HUB_TOKEN} in secretRef",
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
    return TrainerError(
        Reason.HUB_UNREACHABLE,
        f"the hub could not be reached for {location} ({first_line(error)}): allow the pods to "
        "reach it, set HF_ENDPOINT to a mirror, or put the files on a claim and use pvc://",
    )
