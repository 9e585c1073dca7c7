"""``init``: a finetune.yaml whose comments explain each choice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from tunesmith.api.finetunejob import MAXIMUM_NAME_LENGTH
from tunesmith.api.locations import (
    ARCHIVE_PATTERN,
    CONFIG_MAP_PATTERN,
    HTTPS_PATTERN,
    HUB_DATASET_PATTERN,
    HUB_MODEL_PATTERN,
    PVC_FOLDER_PATTERN,
    PVC_PATTERN,
    S3_FOLDER_PATTERN,
    S3_PATTERN,
)
from tunesmith.api.method import Method

NAME = rf"^(?=.{{1,{MAXIMUM_NAME_LENGTH}}}$)[a-z]([-a-z0-9]*[a-z0-9])?$"
BASE_MODELS = (HUB_MODEL_PATTERN, PVC_PATTERN, S3_PATTERN, ARCHIVE_PATTERN)
DATASETS = (PVC_PATTERN, CONFIG_MAP_PATTERN, HUB_DATASET_PATTERN, S3_PATTERN, HTTPS_PATTERN)
OUTPUTS = (PVC_FOLDER_PATTERN, S3_FOLDER_PATTERN)
SERVED_MODELS = (HUB_MODEL_PATTERN, PVC_PATTERN)
OPENED_BY_SECRETS = ("hf://", "s3://", "https://")


@dataclass(frozen=True)
class Source:
    """Where something is, what opens it, and what must be found there."""

    uri: str
    secret: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Choices:
    """What a user says; all else has a default in the API."""

    name: str
    base_model: Source
    dataset: Source
    output: Source
    method: Method = Method.AUTO
    gpus: int = 1
    memory: str | None = None
    gpu_memory: str | None = None
    review: bool = False
    #: Name of an AdapterDeployment that serves what passed.
    serve: str | None = None


def mistakes(choices: Choices) -> Iterator[str]:
    """What the API server would refuse, in the words of the flags."""
    for flag, name in (("--name", choices.name), ("--serve", choices.serve or choices.name)):
        if not re.match(NAME, name):
            yield (
                f"{flag}: use at most {MAXIMUM_NAME_LENGTH} lower-case letters, digits and '-', "
                f"beginning with a letter, not {name!r}"
            )
    places = (
        ("--base-model", choices.base_model, BASE_MODELS, "hf://ORGANISATION/NAME, "
         "pvc://CLAIM/FOLDER, s3://BUCKET/FOLDER or https://HOST/PATH.tar.gz"),
        ("--dataset", choices.dataset, DATASETS, "pvc://CLAIM/PATH, configmap://NAME/KEY, "
         "s3://BUCKET/PATH, hf://datasets/ORGANISATION/NAME/PATH or https://HOST/PATH"),
        ("--output", choices.output, OUTPUTS, "pvc://CLAIM[/FOLDER] or s3://BUCKET[/FOLDER]"),
    )  # fmt: skip
    for flag, source, patterns, forms in places:
        yield from _mistakes_of(flag, source, patterns, forms)
    served = any(re.match(each, choices.base_model.uri) for each in SERVED_MODELS)
    if choices.serve and not served:
        yield "--serve: a served base model is at hf:// or pvc://, as vLLM opens it by itself"


def _mistakes_of(flag: str, source: Source, patterns: tuple[str, ...], forms: str) -> Iterator[str]:
    if ".." in source.uri or not any(re.match(each, source.uri) for each in patterns):
        yield f"{flag}: write {forms}, not {source.uri!r}"
    elif source.uri.startswith("https://") and not source.digest:
        yield f"{flag}-digest: https:// needs sha256: and what sha256sum says of the file"
    elif source.secret and not source.uri.startswith(OPENED_BY_SECRETS):
        yield f"{flag}-secret: only hf://, s3:// and https:// are opened by a Secret"


def finetune_yaml(choices: Choices) -> str:
    """The file."""
    return "\n".join([*_job(choices), *(_deployment(choices) if choices.serve else ())]) + "\n"


def _job(choices: Choices) -> Iterator[str]:
    yield "# What would come of it, before anything is created: kubectl tunesmith plan -f FILE"
    yield "# Every field, with its default and its reason: kubectl explain finetunejob.spec"
    yield "apiVersion: tunesmith.dev/v1alpha1"
    yield "kind: FineTuneJob"
    yield "metadata:"
    yield "  # Also the name to put into a request's model field, once it is served."
    yield f"  name: {_scalar(choices.name)}"
    yield "spec:"
    yield "  # The model that is tuned."
    yield from _source("baseModel", choices.base_model)
    yield "  # The examples. A tenth of them is held out before anything else happens: the verdict"
    yield "  # rests on it, and nothing is trained on it (dataset.heldOut)."
    yield from _source("dataset", choices.dataset)
    if choices.review:
        yield "    # Training waits until a person has looked at the data and approved it:"
        yield f"    # kubectl tunesmith approve {choices.name}"
        yield "    review: {required: true}"
    yield from _method(choices)
    yield "  # Where the adapter goes: a folder of its own below this one, named by its content."
    yield from _source("output", choices.output)
    yield from _resources(choices)
    yield "  # The adapter is served only if it beats the base model under its best system prompt:"
    yield "  # the whole confidence interval of the difference must lie above so many points."
    yield "  evaluation:"
    yield "    minimumDifference: 0"


def _source(field: str, source: Source) -> Iterator[str]:
    yield f"  {field}:"
    yield f"    uri: {_scalar(source.uri)}"
    if source.digest:
        yield "    # The job fails if anything else is found there."
        yield f"    digest: {_scalar(source.digest)}"
    if source.secret:
        yield "    # The Secret that opens it; it must be in this namespace."
        yield "    secretRef:"
        yield f"      name: {_scalar(source.secret)}"


def _scalar(text: str) -> str:
    """As YAML needs it: a job may be called yes."""
    return yaml.safe_dump(text, width=4096).removesuffix("...\n").strip()


METHODS = {
    Method.AUTO: "LoRA where it fits into the GPU's memory, else QLoRA.",
    Method.LORA: "Small matrices beside the frozen weights: an adapter of some megabytes.",
    Method.QLORA: "LoRA beside weights that lie in 4 bits: less memory, somewhat slower.",
    Method.DORA: "LoRA that trains the length of each row, too; it is served merged.",
    Method.QDORA: "DoRA beside weights that lie in 4 bits; it is served merged.",
    Method.FULL: "Every weight is trained: a model comes out, not an adapter.",
}


def _method(choices: Choices) -> Iterator[str]:
    yield f"  # {METHODS[choices.method]}"
    yield f"  method: {choices.method}"


def _resources(choices: Choices) -> Iterator[str]:
    yield "  # What each training pod asks for. Data is prepared and memory is planned before a GPU"
    yield "  # is asked for."
    yield "  resources:"
    yield f"    gpus: {choices.gpus}"
    if choices.gpu_memory:
        yield "    # Of one GPU: what the memory plan is made for."
        yield f"    gpuMemory: {_scalar(choices.gpu_memory)}"
    if choices.memory:
        yield f"    memory: {_scalar(choices.memory)}"


def _deployment(choices: Choices) -> Iterator[str]:
    model = choices.base_model
    yield "---"
    yield "# Serves the base model and every adapter of it in this namespace that passed."
    yield "apiVersion: tunesmith.dev/v1alpha1"
    yield "kind: AdapterDeployment"
    yield "metadata:"
    yield f"  name: {_scalar(choices.serve or choices.name)}"
    yield "spec:"
    yield from _source("baseModel", Source(model.uri, model.secret))
    yield "  resources:"
    yield f"    gpus: {min(choices.gpus, 1)}"
    if choices.memory:
        yield f"    memory: {_scalar(choices.memory)}"
