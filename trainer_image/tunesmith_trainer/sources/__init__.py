"""Finding what a plan names, wherever it lies: a model, a dataset, an adapter.

What is not on a volume of this pod is downloaded into the scratch folder. Every function raises
TrainerError with a sentence that says what to write instead.
"""

from __future__ import annotations

from pathlib import Path

from tunesmith.api.digests import ADAPTER_FILES, adapter_digest, base_model_digest, file_digest
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.trainer_contract import PlannedSource, Reason

from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.model import read_configuration
from tunesmith_trainer.sources.digest import require_digest
from tunesmith_trainer.sources.mounted import listed, mounted
from tunesmith_trainer.sources.plain_files import require_inside, require_plain_files

__all__ = [
    "adapter_folder",
    "dataset_file",
    "described_model",
    "listed",
    "model_folder",
    "mounted",
]

#: What a model in safetensors needs; weights in other formats are left where they are.
WEIGHTS = "*.safetensors"
MODEL_FILES = [WEIGHTS, "*.json", "*.jinja", "*.txt", "tokenizer.model", "*.tiktoken"]


def model_folder(source: PlannedSource, field: str = "baseModel.uri") -> Path:
    """The folder of a model; ``field`` is where a user wrote the uri."""
    folder = _model(source, MODEL_FILES)
    require_model(source, folder, field)
    if not any(folder.glob(WEIGHTS)):
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{source.uri} has no {WEIGHTS}, only {listed(folder)}: save the model with "
            "save_pretrained() of transformers, which writes that format",
        )
    # An archive was checked before it was unpacked.
    if parse_location(source.uri).scheme is not Scheme.HTTPS:
        require_digest(source, Reason.BASE_MODEL_CHANGED, base_model_digest, folder)
    return folder


def described_model(source: PlannedSource, field: str = "baseModel.uri") -> Path:
    """The same without fetching weights: configuration and tokenizer tell what data needs to know.

    Whether the weights are those of ``content_digest`` is seen when they are loaded.
    """
    folder = _model(source, [name for name in MODEL_FILES if name != WEIGHTS])
    require_model(source, folder, field)
    return folder


def require_model(source: PlannedSource, folder: Path, field: str) -> None:
    require_inside(source, folder, Reason.MODEL_UNUSABLE)
    if not folder.is_dir():
        raise TrainerError(
            Reason.MODEL_NOT_FOUND,
            f"{source.uri} does not exist: there is no folder {folder.name!r} in that place. "
            f"Correct {field}, or put the model there",
        )
    if not (folder / "config.json").is_file():
        raise TrainerError(
            Reason.MODEL_NOT_FOUND,
            f"{source.uri} holds no model: looked for config.json and {WEIGHTS} and found "
            f"{listed(folder)}. Correct {field}, or put the model there",
        )
    require_plain_files(source, folder, Reason.MODEL_UNUSABLE)
    read_configuration(folder, source.uri)


def _model(source: PlannedSource, files: list[str]) -> Path:
    location = parse_location(source.uri)
    match location.scheme:
        case Scheme.HUB:
            from tunesmith_trainer.sources.hub import download_model

            return download_model(location, source.credentials, files)
        case Scheme.S3:
            from tunesmith_trainer.sources.object_store import download_folder

            return download_folder(location, source.credentials, Reason.MODEL_NOT_FOUND, files)
        case Scheme.HTTPS:
            from tunesmith_trainer.sources.archive import model_in
            from tunesmith_trainer.sources.https import download

            archive = download(source, Reason.MODEL_NOT_FOUND, Reason.BASE_MODEL_CHANGED)
            return model_in(archive, source.uri)
        case _:
            return mounted(source)


def dataset_file(source: PlannedSource, field: str = "dataset.uri") -> Path:
    """The file of a dataset; ``field`` is where a user wrote the uri."""
    path = _dataset(source)
    require_inside(source, path, Reason.DATASET_MALFORMED)
    if not path.is_file():
        found = (
            "a folder" if path.is_dir() else f"no such file; its folder has {listed(path.parent)}"
        )
        raise TrainerError(
            Reason.DATASET_NOT_FOUND,
            f"{source.uri}: {found}. Put the file there, or correct {field}",
        )
    require_digest(source, Reason.DATASET_CHANGED, lambda file: f"sha256:{file_digest(file)}", path)
    return path


def _dataset(source: PlannedSource) -> Path:
    location = parse_location(source.uri)
    match location.scheme:
        case Scheme.HUB:
            from tunesmith_trainer.sources.hub import download_dataset

            return download_dataset(location, source.credentials)
        case Scheme.S3:
            from tunesmith_trainer.sources.object_store import download_file

            return download_file(location, source.credentials, Reason.DATASET_NOT_FOUND)
        case Scheme.HTTPS:
            from tunesmith_trainer.sources.https import download

            return download(source, Reason.DATASET_NOT_FOUND, Reason.DATASET_CHANGED)
        case _:
            return mounted(source)


def adapter_folder(source: PlannedSource, digest: str) -> Path:
    """The folder of an adapter. Raises TrainerError unless it holds the one with this digest."""
    location = parse_location(source.uri)
    if location.scheme is Scheme.S3:
        from tunesmith_trainer.sources.object_store import download_folder

        folder = download_folder(location, source.credentials, Reason.ADAPTER_NOT_FOUND)
    else:
        folder = mounted(source)
    require_inside(source, folder, Reason.MODEL_UNUSABLE)
    require_plain_files(source, folder, Reason.MODEL_UNUSABLE)
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
