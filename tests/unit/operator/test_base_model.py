"""The base model's layers, from headers and configuration alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tunesmith.sidecar.base_model import BaseModel, BaseModelUnreadable

from tests.unit.bounds import quick_and_small
from tests.unit.operator.adapters import (
    BASE_CONFIGURATION,
    DOWN,
    SHAPES,
    Q,
    Stored,
    base_tensors,
    safetensors,
    with_header,
    write_base,
)


def test_layers_are_known_by_name(tmp_path: Path) -> None:
    base = BaseModel.read(write_base(tmp_path))
    for name, shape in SHAPES.items():
        assert base.shape_of(f"model.layers.1.{name}") == shape
    assert base.shape_of("model.embed_tokens") == (10, 8)


@pytest.mark.parametrize(
    "module",
    [
        "model.layers.2.self_attn.q_proj",
        "layers.0.self_attn.q_proj",
        "transformer.layers.0.self_attn.q_proj",
        "model.layers.0.input_layernorm",
        "q_proj",
        "",
    ],
)
def test_what_the_model_lacks_has_no_shape(tmp_path: Path, module: str) -> None:
    base = BaseModel.read(write_base(tmp_path))
    assert base.shape_of(module) is None
    assert not base.has(module)


def test_a_tied_head_has_the_shape_of_the_embedding(tmp_path: Path) -> None:
    assert BaseModel.read(write_base(tmp_path / "tied")).shape_of("lm_head") == (10, 8)
    own = base_tensors() | {"lm_head.weight": Stored((14, 8), "BF16")}
    assert BaseModel.read(write_base(tmp_path / "own", own)).shape_of("lm_head") == (14, 8)
    headless = BASE_CONFIGURATION | {"tie_word_embeddings": False}
    folder = write_base(tmp_path / "headless", configuration=headless)
    assert BaseModel.read(folder).shape_of("lm_head") is None


def test_a_model_in_several_files_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    write_base(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    first, second = (tmp_path / f"model-0000{part}-of-00002.safetensors" for part in (1, 2))
    first.write_bytes(safetensors(base_tensors([0])))
    with pytest.raises(BaseModelUnreadable, match="only 1 of 00002 files model-"):
        BaseModel.read(tmp_path)
    second.write_bytes(safetensors(base_tensors([1])))
    base = BaseModel.read(tmp_path)
    assert base.shape_of(Q) == (8, 8)
    assert base.shape_of(DOWN) == (8, 12)


def four_bit(out: int, inner: int, data_type: str = "U8") -> dict[str, Stored]:
    count = out * inner // (2 if data_type == "U8" else 4)
    return {".weight": Stored((count, 1), data_type), ".weight.absmax": Stored((1,))}


@pytest.mark.parametrize("kind", ["nf4", "nf4 in bf16", "int8", "gptq", "awq", "fp8", "packed"])
def test_quantised_layers_have_the_shape_of_the_configuration(tmp_path: Path, kind: str) -> None:
    tensors: dict[str, Stored] = {}
    for name, (out, inner) in SHAPES.items():
        stored = {
            "nf4": four_bit(out, inner),
            "nf4 in bf16": four_bit(out, inner, "BF16"),
            "int8": {".weight": Stored((out, inner), "I8"), ".SCB": Stored((out,))},
            "gptq": {".qweight": Stored((inner // 4, out), "I8"), ".g_idx": Stored((inner,))},
            "awq": {".qweight": Stored((inner, out // 4), "I8"), ".scales": Stored((1, out))},
            "fp8": {".weight": Stored((out, inner), "F8_E4M3"), ".weight_scale": Stored(())},
            "packed": {".weight_packed": Stored((out, inner // 4), "I32")},
        }[kind]
        tensors |= {f"model.layers.0.{name}{suffix}": each for suffix, each in stored.items()}
    base = BaseModel.read(write_base(tmp_path, tensors))
    for name, shape in SHAPES.items():
        assert base.shape_of(f"model.layers.0.{name}") == shape


def test_a_quantised_layer_of_unknown_shape_is_there_without_one(tmp_path: Path) -> None:
    expert, fused = "model.layers.0.mlp.experts.0.up_proj", "model.layers.0.self_attn.qkv_proj"
    tensors = {
        f"{expert}.qweight": Stored((1, 10), "I32"),
        f"{fused}.qweight": Stored((1, 16), "I32"),
    }
    base = BaseModel.read(write_base(tmp_path, tensors))
    for module in (expert, fused):
        assert base.has(module)
        assert base.shape_of(module) is None


def test_head_dim_outweighs_the_division(tmp_path: Path) -> None:
    tensors = {f"{Q}.qweight": Stored((1, 32), "I32")}
    folder = write_base(tmp_path, tensors, BASE_CONFIGURATION | {"head_dim": 4})
    assert BaseModel.read(folder).shape_of(Q) == (16, 8)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_models_that_see_name_their_text_layers_in_two_ways(tmp_path: Path, prefix: str) -> None:
    configuration = {"text_config": BASE_CONFIGURATION}
    folder = write_base(tmp_path, base_tensors(prefix=prefix), configuration)
    base = BaseModel.read(folder)
    assert base.shape_of("model.language_model.layers.0.self_attn.k_proj") == (4, 8)
    assert base.shape_of("language_model.model.layers.0.self_attn.k_proj") == (4, 8)
    assert base.shape_of("vision.layers.0.self_attn.k_proj") is None


@pytest.mark.parametrize("spoiled", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"[]", b"\xff\xff", with_header(b'{"a": 1}')]
)
def test_what_cannot_be_read_is_named(tmp_path: Path, spoiled: str, content: bytes) -> None:
    write_base(tmp_path)
    (tmp_path / spoiled).write_bytes(content)
    with pytest.raises(BaseModelUnreadable, match=spoiled):
        BaseModel.read(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_files_are_named(tmp_path: Path, missing: str) -> None:
    write_base(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(BaseModelUnreadable, match=missing.replace("model", r"\*")):
        BaseModel.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config.json", "larger than"),
        ("model.safetensors", "bytes after its last tensor"),
        ("other.safetensors", "would have 0 bytes"),
    ],
)
def test_a_giant_of_nothing_is_named_at_once(tmp_path: Path, name: str, said: str) -> None:
    write_base(tmp_path)
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 10 * 1024**3)
    with quick_and_small(), pytest.raises(BaseModelUnreadable, match=said):
        BaseModel.read(tmp_path)


def test_giants_of_other_kinds_beside_the_weights_are_not_opened(tmp_path: Path) -> None:
    write_base(tmp_path)
    for name in ("tokenizer.json", "pytorch_model.bin", "model.safetensors.index.json"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 10 * 1024**3)
    with quick_and_small():
        assert BaseModel.read(tmp_path).shape_of(Q) == (8, 8)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    changed=st.dictionaries(
        st.sampled_from([*sorted(BASE_CONFIGURATION), "text_config", "head_dim"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    ),
    edits=st.lists(
        st.tuples(st.integers(0, 3000), st.binary(max_size=3), st.integers(0, 3)), max_size=3
    ),
)
def test_strange_base_models_are_read_or_named(
    tmp_path_factory: pytest.TempPathFactory,
    changed: dict[str, object],
    edits: list[tuple[int, bytes, int]],
) -> None:
    folder = tmp_path_factory.getbasetemp() / "strange"
    write_base(folder, configuration={**BASE_CONFIGURATION, **changed})
    content = bytearray((folder / "model.safetensors").read_bytes())
    for position, inserted, removed in edits:
        content[position : position + removed] = inserted
    (folder / "model.safetensors").write_bytes(content)
    with quick_and_small(), contextlib.suppress(BaseModelUnreadable):
        BaseModel.read(folder).shape_of(Q)


def test_files_written_by_hand_here_are_what_safetensors_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors({"a": Stored((2, 3)), "b": Stored((1,), "F16")}))
    assert {name: array.shape for name, array in load_file(path).items()} == {
        "a": (2, 3),
        "b": (1,),
    }
