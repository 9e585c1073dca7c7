"""The merging recipe, from the plan to a model folder of its own. Reads from top to bottom."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api import digests
from tunesmith.api.objects import DatasetFormat
from tunesmith.api.schema import ApiModel
from tunesmith.api.trainer_contract import HELD_OUT_FILE, MergeOutcome, MergePlan, Reason

from tunesmith_trainer import machine, sources
from tunesmith_trainer.adapter_files import require_bounded
from tunesmith_trainer.artifact import LINEAGE_FILE
from tunesmith_trainer.data.chat import load_chat_format
from tunesmith_trainer.data.formats import Conversation, conversation_from
from tunesmith_trainer.data.rows import read_rows
from tunesmith_trainer.failure import TrainerError, first_line, is_out_of_memory
from tunesmith_trainer.lineage import BaseModelLineage, hub_revision, library_versions, now
from tunesmith_trainer.model import read_configuration, read_weights
from tunesmith_trainer.output import place_of, staged
from tunesmith_trainer.output.folder import output_errors

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

    from tunesmith_trainer.merge.comparison import Comparison, Reference

log = logging.getLogger(__name__)

MERGE_FILE = "merge.json"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
#: Any of these holds a tokenizer's vocabulary; the others say more about it.
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "*.tiktoken")
TOKENIZER_FILES = (
    *VOCABULARIES,
    *(TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "merges.txt"),
)

#: Small enough to be written and read a few at a time.
SHARD_SIZE = "4GB"
#: Types that can be merged into; in others, rounding takes the adapter away.
MERGEABLE_TYPES = ("bfloat16", "float16", "float32")
PROMPTS = 6
PROMPT_TOKENS = 256
#: Asked when the adapter brings no examples of its own.
TEXTS = (
    "The capital of France is Paris, and the capital of Japan is",
    '{"name": "Ada Lovelace", "born": 1815, "known_for": ["mathematics", "computing"]}',
    "def add(first, second):\n    return first + second\n\n\nprint(add(2, 3))",
    "Question: A train leaves at 9:40 and arrives at 11:05. How long does it take?\nAnswer:",
)


class MergeRecord(ApiModel):
    """The content of merge.json: what was merged, and how well."""

    owner: str
    base_model: BaseModelLineage
    adapter_uri: str
    adapter_digest: str
    #: Of this folder's configuration and weights.
    digest: str
    dtype: str
    prompts: int
    largest_difference: float
    tolerance: float
    #: Largest change by the adapter, and by one more rounding of the merged weights.
    effect: float
    rounding: float
    libraries: dict[str, str]
    device: str
    finished_at: str


def merge(plan: MergePlan) -> MergeOutcome:
    """Merge, or report what an earlier attempt at the same has already merged."""
    adapter_folder = sources.adapter_folder(plan.adapter, plan.adapter_digest)
    base_folder = sources.model_folder(plan.base_model)
    base_model = verified_base_model(plan, base_folder)
    output = sources.mounted(plan.output)
    finished = recall(plan, output, base_model.digest)
    if finished is not None:
        log.info("already merged: %s", plan.output.uri)
        return finished

    require_place(plan, output, base_folder)
    dtype = own_type(base_folder, plan.base_model.uri)
    prompts = prompts_of(plan, base_folder, adapter_folder)

    from tunesmith_trainer.merge.comparison import compare, reference_of
    from tunesmith_trainer.model import load_base_model

    machine.use_all_processors()
    device = machine.device()
    adapted = load_base_model(base_folder, plan.base_model.uri, torch_type(dtype), device)
    adapted = attach_adapter(adapted, adapter_folder, plan)
    reference = reference_of(adapted, require_known(prompts, adapted, plan))
    require_effect(reference, plan)

    with staged(*place_of(plan.output)) as staging:
        write_model(merged(adapted, plan), base_folder, staging)
        write_texts(base_folder, adapter_folder, staging)
        del adapted  # one model at a time
        free_memory()
        published = load_base_model(staging, plan.output.uri, torch_type(dtype), device)
        comparison = compare(published.eval(), prompts, reference)
        require_equal(comparison, plan, dtype)
        record = MergeRecord(
            owner=plan.owner,
            base_model=base_model,
            adapter_uri=plan.adapter.uri,
            adapter_digest=plan.adapter_digest,
            digest=digests.base_model_digest(staging),
            dtype=dtype,
            prompts=len(prompts),
            largest_difference=comparison.largest_difference,
            tolerance=comparison.tolerance,
            effect=comparison.effect,
            rounding=comparison.rounding,
            libraries=library_versions(),
            device=str(device),
            finished_at=now(),
        )
        text = json.dumps(record.to_json(), indent=2) + "\n"
        (staging / MERGE_FILE).write_text(text, encoding="utf-8")

    log.info("published %s (%s)", plan.output.uri, record.digest)
    return outcome_of(plan, record)


def outcome_of(plan: MergePlan, record: MergeRecord) -> MergeOutcome:
    return MergeOutcome(
        uri=plan.output.uri,
        adapter_digest=record.adapter_digest,
        base_model_digest=record.base_model.digest,
        digest=record.digest,
        largest_difference=record.largest_difference,
        tolerance=record.tolerance,
    )


def verified_base_model(plan: MergePlan, folder: Path) -> BaseModelLineage:
    """What the base model is. Raises TrainerError if the plan says otherwise."""
    found = digests.base_model_digest(folder)
    if plan.base_model_digest not in (None, found):
        raise TrainerError(
            Reason.BASE_MODEL_CHANGED,
            f"{plan.base_model.uri} holds a model with digest {found}, not "
            f"{plan.base_model_digest}, which the adapter was trained on: put that model back, or "
            "train the adapter again on this one",
        )
    return BaseModelLineage(uri=plan.base_model.uri, digest=found, revision=hub_revision(folder))


def recall(plan: MergePlan, output: Path, base_model_digest: str) -> MergeOutcome | None:
    """The result of an earlier attempt, if its files are still what they were."""
    try:
        record = MergeRecord.model_validate_json((output / MERGE_FILE).read_bytes())
        unchanged = (
            record.adapter_digest == plan.adapter_digest
            and record.base_model.digest == base_model_digest
            and digests.base_model_digest(output) == record.digest
        )
    except (OSError, ValueError):
        return None
    return outcome_of(plan, record) if unchanged else None


def require_place(plan: MergePlan, output: Path, base_folder: Path) -> None:
    """Find out before merging that the result cannot be stored, or would take another's place."""
    with output_errors(plan.output.uri):
        if output.exists() and not (output / MERGE_FILE).is_file() and any(output.iterdir()):
            raise TrainerError(
                Reason.OUTPUT_NOT_WRITABLE,
                f"{plan.output.uri} holds something that is no merged model "
                f"({sources.listed(output)}): name another folder, or empty this one",
            )
    place_of(plan.output)[0].require_writable()
    needed = sum(path.stat().st_size for path in digests.weight_files(base_folder))
    free = shutil.disk_usage(output.parent).free
    if free < needed:
        raise TrainerError(
            Reason.OUTPUT_NOT_WRITABLE,
            f"{plan.output.uri} needs {needed / 1e9:.1f} GB and its volume has {free / 1e9:.1f} GB "
            "left: make room there, or name a folder of another claim",
        )


def own_type(folder: Path, uri: str) -> str:
    """The type that a model is stored in, which is the one that it is served in."""
    config = read_configuration(folder, uri)
    text = config.get("text_config")
    nested = text if isinstance(text, dict) else {}
    first = next((tensor.data_type for tensor in read_weights(folder, uri)), "no type")
    short = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}.get(first, first)
    named = [part.get(key) for part in (config, nested) for key in ("dtype", "torch_dtype")]
    dtype = str(next((name for name in named if name), short))
    if "quantization_config" in config or dtype not in MERGEABLE_TYPES:
        found = "quantised weights" if "quantization_config" in config else f"weights in {dtype}"
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{uri} has {found}, and an adapter merged into them would be rounded away: name the "
            f"original model in {', '.join(MERGEABLE_TYPES)}",
        )
    return dtype


def torch_type(name: str) -> torch.dtype:
    import torch

    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def prompts_of(plan: MergePlan, base_folder: Path, adapter_folder: Path) -> list[list[int]]:
    """What both models are asked: held-out examples, which the adapter was made for, or texts."""
    from transformers import AutoTokenizer

    own = holds_tokenizer(adapter_folder)
    folder, uri = (adapter_folder, plan.adapter.uri) if own else (base_folder, plan.base_model.uri)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{uri} has no tokenizer that can be read ({first_line(error)}): add tokenizer.json "
            "and tokenizer_config.json to its folder",
        ) from error
    conversations = held_out(adapter_folder)
    if conversations and tokenizer.chat_template is not None:
        chat = load_chat_format(folder, uri)
        prompts = [chat.example(conversation).tokens for conversation in conversations]
    else:
        prompts = [tokenizer(text)["input_ids"] for text in TEXTS]
    return [list(prompt[:PROMPT_TOKENS]) for prompt in prompts]


def held_out(adapter_folder: Path) -> list[Conversation]:
    path = adapter_folder / HELD_OUT_FILE
    if not path.is_file():
        return []
    rows = zip(range(PROMPTS), read_rows(path), strict=False)
    return [conversation_from(row, DatasetFormat.MESSAGES) for _, row in rows]


def attach_adapter(model: PreTrainedModel, folder: Path, plan: MergePlan) -> PeftModel:
    from peft import PeftModel
    from peft.tuners.lora import LoraModel

    require_bounded(model, folder, plan.adapter.uri)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()
    except Exception as error:
        # Whatever PEFT makes of the files of strangers: it checks few of them.
        if is_out_of_memory(error):
            raise
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"the adapter {plan.adapter.uri} does not fit the base model ({first_line(error)}): "
            "merge it with the base model that it was trained on",
        ) from error
    if not isinstance(adapted.base_model, LoraModel):
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{plan.adapter.uri} is no LoRA or DoRA adapter, but "
            f"{adapted.active_peft_config.peft_type}: only those can be merged",
        )
    return adapted


def require_known(prompts: list[list[int]], model: PeftModel, plan: MergePlan) -> list[list[int]]:
    """Tokens that the adapter's tokenizer adds must have a place in the model."""
    known = model.get_input_embeddings().weight.shape[0]
    highest = max(token for prompt in prompts for token in prompt)
    if highest >= known:
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"the tokenizer of {plan.adapter.uri} has token {highest}, and the base model has only "
            f"{known}: train the adapter without additional tokens",
        )
    return prompts


def require_effect(reference: Reference, plan: MergePlan) -> None:
    from tunesmith_trainer.evaluate.canary import LEAST_CHANGE

    log.info("the adapter changes log-probabilities by up to %.3g", reference.effect)
    if reference.effect < LEAST_CHANGE:
        raise TrainerError(
            Reason.ADAPTER_NOT_APPLIED,
            f"{plan.adapter.uri} changes nothing: the base model answers the same with and without "
            "it. Its weights are zero, or belong to layers that this base model does not have: "
            "serve the base model, or train the adapter again",
        )


def merged(adapted: PeftModel, plan: MergePlan) -> PreTrainedModel:
    """The base model with the adapter in its weights. Not a copy: the adapter is gone after."""
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:  # weights that are no number
        raise TrainerError(
            Reason.MERGE_NOT_EQUAL,
            f"{plan.adapter.uri} cannot be merged ({first_line(error)}): its weights are too large "
            "for the base model's type, or broken. Serve it as an adapter, or train it again",
        ) from error


def write_model(model: PreTrainedModel, base_folder: Path, folder: Path) -> None:
    """The weights as transformers writes them; of the rest, what the base model brings.

    Merging changes no shape, and servers with other versions of transformers read the base's own
    configuration for certain.
    """
    from safetensors import SafetensorError
    from transformers import GenerationConfig

    # The base's own is copied below; saving would check it, and refuses what models really have.
    model.generation_config = GenerationConfig()
    try:
        model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    except SafetensorError as error:  # it says so when the volume is full, and nothing more
        raise OSError(str(error)) from error
    (folder / GENERATION_CONFIG).unlink(missing_ok=True)
    copy_files(base_folder, folder, [GENERATION_CONFIG])
    config = json.loads((base_folder / CONFIG).read_bytes())
    tied = getattr(model.config, "tie_word_embeddings", None)
    if tied is False and config.get("tie_word_embeddings", True):
        # An adapter of the embeddings has parted them; or the type's default is apart.
        config["tie_word_embeddings"] = False
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    else:
        copy_files(base_folder, folder, [CONFIG])


def write_texts(base_folder: Path, adapter_folder: Path, folder: Path) -> None:
    """Tokenizer and chat template: the adapter's, with which it was trained, before the base's."""
    own = holds_tokenizer(adapter_folder)
    copy_files(adapter_folder if own else base_folder, folder, TOKENIZER_FILES)
    if (adapter_folder / CHAT_TEMPLATE).is_file():
        copy_files(adapter_folder, folder, [CHAT_TEMPLATE])
    elif not (own and template_in_config(adapter_folder)):
        copy_files(base_folder, folder, [CHAT_TEMPLATE])
        template = template_in_config(base_folder)
        if own and isinstance(template, str) and not (folder / CHAT_TEMPLATE).exists():
            (folder / CHAT_TEMPLATE).write_text(template, encoding="utf-8")
    copy_files(adapter_folder, folder, [LINEAGE_FILE])


def holds_tokenizer(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in VOCABULARIES)


def template_in_config(folder: Path) -> object:
    """A chat template that is kept in the tokenizer's configuration, as it used to be."""
    try:
        return json.loads((folder / TOKENIZER_CONFIG).read_bytes()).get("chat_template")
    except FileNotFoundError:
        return None


def copy_files(source: Path, target: Path, patterns: list[str] | tuple[str, ...]) -> None:
    """Copy what is there, as files: the hub's cache holds links."""
    for pattern in patterns:
        for path in source.glob(pattern):
            shutil.copyfile(path, target / path.name)


def free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def require_equal(comparison: Comparison, plan: MergePlan, dtype: str) -> None:
    log.info(
        "merged: log-probabilities differ by up to %.3g (allowed %.3g; effect of the adapter %.3g, "
        "of rounding %.3g)",
        comparison.largest_difference,
        comparison.tolerance,
        comparison.effect,
        comparison.rounding,
    )
    if not comparison.equal:
        raise TrainerError(
            Reason.MERGE_NOT_EQUAL,
            f"{plan.base_model.uri} merged with {plan.adapter.uri} does not answer as it does with "
            "the adapter beside it: log-probabilities differ by "
            f"{comparison.largest_difference:.3g}, and {comparison.tolerance:.3g} is allowed for "
            f"an adapter that changes them by {comparison.effect:.3g}. Nothing was published. "
            f"Serve it as an adapter, or, if it is too weak for {dtype}, merge it into the model "
            "in float32",
        )
