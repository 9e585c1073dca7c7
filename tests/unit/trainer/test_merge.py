"""Base model and adapter become one model, which is only published if it answers the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api import digests
from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PLAN_READER,
    ExitCode,
    MergePlan,
    Reason,
    TerminationMessage,
)

pytest.importorskip("torch")
pytest.importorskip("peft")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tunesmith_trainer import artifact
from tunesmith_trainer.failure import Preempted, TrainerError
from tunesmith_trainer.main import main
from tunesmith_trainer.merge import recipe
from tunesmith_trainer.merge.recipe import MERGE_FILE, merge

BASE_URI = "pvc://models/tiny"
URI = "pvc://merged/team/job"
SHAPES: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
}
TYPES = ("float32", "bfloat16")


def load(folder: Path, dtype: str = "float32") -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model(torch.arange(4, 60)[None]).logits.float()


@pytest.fixture(scope="session")
def bases(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    narrow = tmp_path_factory.mktemp("models") / "narrow"
    shutil.copytree(tiny_model, narrow)
    load(tiny_model, "bfloat16").save_pretrained(narrow)
    return {"float32": tiny_model, "bfloat16": narrow}


@pytest.fixture(scope="session")
def make_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(size: float = 0.1, **shape: Any) -> Path:
        torch.manual_seed(1)
        targets = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
        config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=targets)
        for name, value in shape.items():
            setattr(config, name, value)
        model = get_peft_model(load(tiny_model), config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=size)
            elif "lora_magnitude" in name:
                parameter.data *= 1 + size * torch.rand_like(parameter)
        folder = tmp_path_factory.mktemp("adapters") / "adapter"
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def adapters(make_adapter: Callable[..., Path]) -> dict[str, Path]:
    return {name: make_adapter(**shape) for name, shape in SHAPES.items()}


def merge_plan(base: Path, adapter: Path, folder: Path, **changes: Any) -> MergePlan:
    raw = {
        "kind": "Merge",
        "owner": "team/deployment",
        "baseModel": {"uri": BASE_URI, "path": str(base)},
        "baseModelDigest": digests.base_model_digest(base),
        "adapter": {"uri": "pvc://adapters/team/job", "path": str(adapter)},
        "adapterDigest": digests.adapter_digest(adapter),
        "output": {"uri": URI, "path": str(folder / "merged")},
        **changes,
    }
    plan = PLAN_READER.validate_python(raw)
    assert isinstance(plan, MergePlan)
    return plan


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_merged_model_answers_as_base_and_adapter(
    bases: dict[str, Path], adapters: dict[str, Path], tmp_path: Path, shape: str, dtype: str
) -> None:
    base, adapter = bases[dtype], adapters[shape]
    outcome = merge(merge_plan(base, adapter, tmp_path))
    folder = tmp_path / "merged"
    found = load(folder, dtype)
    plain = logits(load(base))
    expected = logits(PeftModel.from_pretrained(load(base), str(adapter)).eval())
    effect = float((expected - plain).abs().max())
    difference = float((logits(found.float()) - expected).abs().max())
    assert difference < (1e-3 if dtype == "float32" else effect / 10)
    assert outcome.largest_difference <= outcome.tolerance < effect / 3
    assert outcome.digest == digests.base_model_digest(folder)


def unmerged(adapted: Any) -> Any:
    return adapted.unload()


def rescaled(factor: float, layers: str = "") -> Callable[[Any], Any]:
    def merge_it(adapted: Any) -> Any:
        for name, module in adapted.named_modules():
            if layers in name and isinstance(getattr(module, "scaling", None), dict):
                module.scaling = {key: value * factor for key, value in module.scaling.items()}
        return adapted.merge_and_unload(safe_merge=True)

    return merge_it


FAULTS: dict[str, Callable[[Any], Any]] = {
    "left out": unmerged,
    "twice": rescaled(2),
    "half": rescaled(0.5),
    "a layer left out": rescaled(0, "layers.1."),
}


# The coarse type, whose rounding a fault could hide in, and each other shape and type once.
@pytest.mark.parametrize(
    ("fault", "shape", "dtype"),
    [
        *((fault, "LoRA", "bfloat16") for fault in FAULTS),
        *((fault, shape, "float32") for fault, shape in zip(FAULTS, SHAPES, strict=False)),
    ],
)
def test_a_wrong_merge_is_never_published(
    bases: dict[str, Path],
    adapters: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    shape: str,
    dtype: str,
) -> None:
    monkeypatch.setattr(recipe, "merged", lambda adapted, _plan: FAULTS[fault](adapted))
    with pytest.raises(TrainerError, match="Nothing was published") as raised:
        merge(merge_plan(bases[dtype], adapters[shape], tmp_path))
    assert raised.value.reason is Reason.MERGE_NOT_EQUAL
    assert list(tmp_path.iterdir()) == []


def test_what_is_published_is_what_was_verified(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are damaged on their way to the volume, after a right merge."""
    from safetensors.torch import load_file, save_file

    write_model = recipe.write_model

    def damage(model: Any, base_folder: Path, folder: Path) -> None:
        write_model(model, base_folder, folder)
        (path,) = digests.weight_files(folder)
        weights = load_file(path)
        weights["model.layers.0.mlp.up_proj.weight"][:8] = 0
        save_file(weights, path, metadata={"format": "pt"})

    monkeypatch.setattr(recipe, "write_model", damage)
    with pytest.raises(TrainerError) as raised:
        merge(merge_plan(tiny_model, adapters["LoRA"], tmp_path))
    assert raised.value.reason is Reason.MERGE_NOT_EQUAL
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_too_weak_for_the_type_is_refused(
    bases: dict[str, Path], make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    """Rounding to bfloat16 would bury it; float32 holds it."""
    weak = make_adapter(size=3e-4)
    with pytest.raises(TrainerError, match="too weak for bfloat16") as raised:
        merge(merge_plan(bases["bfloat16"], weak, tmp_path))
    assert raised.value.reason is Reason.MERGE_NOT_EQUAL
    merge(merge_plan(bases["float32"], weak, tmp_path))


def test_files_that_strangers_spoiled_are_named_before_peft_sees_them(
    adapters: dict[str, Path], tiny_model: Path, tmp_path: Path
) -> None:
    adapter = shutil.copytree(adapters["LoRA"], tmp_path / "adapter")
    said = json.loads((adapter / digests.ADAPTER_CONFIG).read_text())
    (adapter / digests.ADAPTER_CONFIG).write_text(json.dumps(said | {"r": 10**9}))
    with pytest.raises(TrainerError, match="has rank 1000000000 in r or rank_pattern"):
        merge(merge_plan(tiny_model, adapter, tmp_path))
    base = shutil.copytree(tiny_model, tmp_path / "base")
    (base / "model.safetensors").write_bytes(b"\xff" * 1000)
    with pytest.raises(TrainerError, match=r"model\.safetensors of .* is no safetensors file"):
        merge(merge_plan(base, adapters["LoRA"], tmp_path))


def test_an_adapter_without_effect_is_found_out(
    tiny_model: Path, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(TrainerError, match="changes nothing") as raised:
        merge(merge_plan(tiny_model, make_adapter(size=0), tmp_path))
    assert raised.value.reason is Reason.ADAPTER_NOT_APPLIED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("adapterDigest", Reason.ADAPTER_CHANGED),
        ("baseModelDigest", Reason.BASE_MODEL_CHANGED),
    ],
)
def test_another_digest_than_the_plan_names_is_refused(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path, field: str, reason: Reason
) -> None:
    changes = {field: "sha256:" + "0" * 64}
    with pytest.raises(TrainerError) as raised:
        merge(merge_plan(tiny_model, adapters["LoRA"], tmp_path, **changes))
    assert raised.value.reason is reason
    assert list(tmp_path.iterdir()) == []


def test_a_merged_model_is_not_merged_again(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    plan = merge_plan(tiny_model, adapters["DoRA"], tmp_path)
    first = merge(plan)
    before = stamps(tmp_path)
    assert merge(plan) == first
    assert stamps(tmp_path) == before


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def test_a_damaged_or_outdated_result_is_replaced(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    plan = merge_plan(tiny_model, adapters["LoRA"], tmp_path)
    first = merge(plan)
    (weights,) = digests.weight_files(tmp_path / "merged")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\1\2\3")
    assert merge(plan) == first
    second = merge(merge_plan(tiny_model, adapters["DoRA"], tmp_path))
    assert second.digest == digests.base_model_digest(tmp_path / "merged") != first.digest
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]


def test_the_place_of_something_else_is_not_taken(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "thesis.txt").write_text("mine")
    with pytest.raises(TrainerError, match=r"no merged model \(thesis.txt\)") as raised:
        merge(merge_plan(tiny_model, adapters["LoRA"], tmp_path))
    assert raised.value.reason is Reason.OUTPUT_NOT_WRITABLE
    assert (tmp_path / "merged" / "thesis.txt").read_text() == "mine"


def test_an_interruption_leaves_nothing(
    tiny_model: Path,
    adapters: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def preempted(*_: Any) -> None:
        raise Preempted

    monkeypatch.setattr(recipe, "write_texts", preempted)
    with pytest.raises(Preempted):
        merge(merge_plan(tiny_model, adapters["LoRA"], tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_a_whole_model_with_the_adapters_texts(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    adapter = tmp_path / "adapter"
    shutil.copytree(adapters["LoRA"], adapter)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|start|>", "<|start|> ")
    tokenizer.save_pretrained(adapter)
    (adapter / artifact.LINEAGE_FILE).write_text('{"owner": "team/job"}')
    messages = [{"role": "user", "content": "one?"}, {"role": "assistant", "content": "two"}]
    (adapter / HELD_OUT_FILE).write_text((json.dumps({"messages": messages}) + "\n") * 9)
    merge(merge_plan(tiny_model, adapter, tmp_path))

    folder = tmp_path / "merged"
    assert AutoTokenizer.from_pretrained(folder).chat_template == tokenizer.chat_template
    for name in ("config.json", "generation_config.json"):
        assert (folder / name).read_bytes() == (tiny_model / name).read_bytes()
    assert (folder / artifact.LINEAGE_FILE).read_text() == '{"owner": "team/job"}'
    assert not list(folder.glob("adapter_*"))
    assert folder.stat().st_mode & 0o777 == 0o755
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.iterdir())
    record = json.loads((folder / MERGE_FILE).read_text())
    assert (record["dtype"], record["prompts"]) == ("float32", recipe.PROMPTS)
    assert record["baseModel"]["uri"] == BASE_URI


def test_the_bases_texts_do_where_the_adapter_has_none(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    merge(merge_plan(tiny_model, adapters["LoRA"], tmp_path))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "merged" / name).read_bytes() == (tiny_model / name).read_bytes()


def test_a_quantised_base_is_refused(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes"}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(TrainerError, match="has quantised weights") as raised:
        merge(merge_plan(base, adapters["LoRA"], tmp_path))
    assert raised.value.reason is Reason.MODEL_UNUSABLE


def test_tied_embeddings_stay_tied(
    tiny_model: Path, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    model = load(tiny_model)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    shutil.copytree(tiny_model, base)
    model.save_pretrained(base)
    merge(merge_plan(base, make_adapter(), tmp_path))
    merged = load(tmp_path / "merged")
    assert merged.lm_head.weight is merged.model.embed_tokens.weight


def test_the_process_says_how_it_went(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    plan = merge_plan(tiny_model, adapters["DoRA"], tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    arguments = ["--plan", str(tmp_path / "plan.json"), "--port", "0"]
    assert main([*arguments, "--termination", str(tmp_path / "end")]) == ExitCode.SUCCEEDED
    message = TerminationMessage.model_validate_json((tmp_path / "end").read_bytes())
    assert message.merge is not None
    assert message.merge.digest == digests.base_model_digest(tmp_path / "merged")
