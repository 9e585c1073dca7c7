"""Models that nobody made in good faith, or that a copy has spoiled: a sentence, in bounds."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tunesmith.api.trainer_contract import PlannedSource, Reason

pytest.importorskip("transformers")

import torch
from tunesmith_trainer.data import template
from tunesmith_trainer.data.chat import load_chat_format
from tunesmith_trainer.data.formats import Conversation, Message, Role
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.model import load_base_model
from tunesmith_trainer.sources import adapter_folder, described_model, model_folder
from tunesmith_trainer.train.engine import base

from tests.unit.trainer.bounds import Ended, measured

URI = "pvc://models/tiny"
MOST_BYTES = 700 * 1024**2
MOST_SECONDS = 10


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to spoil, on a volume of its own."""
    return Path(shutil.copytree(tiny_model, tmp_path / "volume" / "tiny"))


def source(folder: Path) -> PlannedSource:
    return PlannedSource(uri=URI, path=str(folder))


def refused(read: Callable[[], object], said: str, reason: Reason = Reason.MODEL_UNUSABLE) -> None:
    with pytest.raises(TrainerError) as raised:
        read()
    assert said in raised.value.message
    assert raised.value.reason is reason


# Chat templates


def with_template(model: Path, text: str) -> Path:
    (model / "chat_template.jinja").write_text(text)
    return model


ENDLESS = {
    "loops in loops": "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "a number that grows": "{{ 9 ** (9 ** 9) }}",
    "a square of a square": (
        "{% set n = namespace(x=9) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}"
    ),
    "macros that call each other": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
}
LARGE = {
    "text": "{{ 'a' * 9999999999 }}",
    "room around it": "{{ 'a' | center(9999999999) }}",
    "lists": "{% set n = namespace(x=[1]) %}{% for i in range(40) %}{% set n.x = n.x + n.x %}"
    "{% endfor %}",
}


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_a_template_without_an_end_is_ended(
    model: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "TRIAL_SECONDS", 1)
    with_template(model, text)
    refused(lambda: load_chat_format(model, URI), f"{URI} does not end within 1 s")


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_a_template_that_asks_for_all_memory_gets_none(model: Path, text: str) -> None:
    with_template(model, text)
    ended = measured(lambda: load_chat_format(model, URI))
    assert ended.told is not None
    assert f"{URI} needs more than 537 MB" in ended.told[1]
    assert ended.more_bytes < MOST_BYTES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ messages[0]['content'] + 1 }}", "fails (TypeError"),
        ("{{ 1 / 0 }}", "fails (ZeroDivisionError"),
        ("{{ messages[0].content.nothing.more }}", "fails (UndefinedError"),
        ("{% for a in range(999999) %}{% endfor %}", "fails (OverflowError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails (RecursionError"),
        ("{{ ''.__class__.__mro__ }}", "fails (SecurityError"),
        ("{% include '/etc/passwd' %}", "fails ("),
        ("{% if %}", "fails (TemplateSyntaxError"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "fails (RecursionError"),
    ],
)
def test_a_template_with_a_mistake_is_named_as_the_models(
    model: Path, text: str, said: str
) -> None:
    chat = load_chat_format(with_template(model, text), URI)
    refused(lambda: chat.prompt([Message(Role.USER, "hi")]), said)


def test_a_template_that_only_some_conversations_keep_busy_is_interrupted(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "LONGEST_SECONDS", 0.2)
    busy = "{% if messages[0].content == 'loop' %}" + ENDLESS["loops in loops"] + "{% endif %}"
    chat = load_chat_format(with_template(model, busy), URI)
    assert chat.prompt([Message(Role.USER, "hi")]) == ""
    row = Conversation((Message(Role.USER, "loop"), Message(Role.ASSISTANT, "yes")))
    refused(lambda: chat.example(row), "does not end within 0.2 s")


# Tokenizers and configurations


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\0",
        b"{" * 100_000,
        b'{"a":' * 100_000,
        b'{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": [["a"]]}}',
        b'{"added_tokens": 7, "extra_special_tokens": [1], "model_type": [1]}',
    ],
    ids=lambda content: repr(content[:30]),
)
def test_what_is_no_tokenizer_or_configuration_is_refused_or_harmless(
    model: Path, name: str, content: bytes
) -> None:
    """Transformers makes do without some of it; all else is a sentence about the model."""
    (model / name).write_bytes(content)
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}")

    def load() -> None:
        folder = described_model(source(model))
        load_chat_format(folder, URI).prompt([Message(Role.USER, "hi")])

    try:
        load()
    except TrainerError as error:
        reasons = {Reason.MODEL_UNUSABLE, Reason.MODEL_NOT_FOUND}
        told = error.reason, error.message
    else:
        return
    assert told[0] in reasons
    assert URI in told[1] or "chat template" in told[1]


@seed(7)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 2**20), st.binary(max_size=3), st.integers(0, 9)),
        min_size=1,
        max_size=3,
    )
)
def test_a_tokenizer_with_spoiled_bytes_is_refused_or_read(
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    edits: list[tuple[int, bytes, int]],
) -> None:
    folder = tmp_path_factory.getbasetemp() / "spoiled"
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    content = bytearray((folder / "tokenizer.json").read_bytes())
    for position, inserted, removed in edits:
        place = position % len(content)
        content[place : place + removed] = inserted
    (folder / "tokenizer.json").write_bytes(content)
    ended = measured(lambda: load_chat_format(folder, URI))
    assert ended.told is None or ended.told[0] is Reason.MODEL_UNUSABLE
    assert ended.processor_seconds < MOST_SECONDS
    assert ended.more_bytes < MOST_BYTES


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read"),
        ("[1]", "is a list, not an object"),
        ("[" * 100_000, "cannot be read"),
        ('{"num_hidden_layers": 1000000000}', "states 1000000000 layers"),
        ('{"text_config": {"num_hidden_layers": 1000000000}}', "states 1000000000 layers"),
        ('{"a": ' + "9" * 5000 + "}", "cannot be read"),
        ("[" + "[],\n" * 5_000_000 + "[]]", "has more than 16777216 bytes"),
    ],
    ids=lambda text: text[:30],
)
def test_a_configuration_that_is_none_is_named(model: Path, content: str, said: str) -> None:
    (model / "config.json").write_text(content)
    for read in (described_model, model_folder):
        refused(lambda read=read: read(source(model)), f"config.json of {URI} {said}")  # type: ignore[misc]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_giant_beside_the_weights_is_refused_unread(model: Path, name: str) -> None:
    (model / name).touch()
    os.truncate(model / name, 10 * 1024**3)
    ended = measured(lambda: described_model(source(model)))
    assert ended.told is not None
    assert f"{name} has 10.7 GB" in ended.told[1]
    assert ended.processor_seconds < 2
    assert ended.more_bytes < 64 * 1024**2


# Weights


def loaded(folder: Path) -> Ended:
    device = torch.device("cpu")
    ended = measured(lambda: load_base_model(folder, URI, torch.float32, device))
    assert ended.processor_seconds < MOST_SECONDS
    assert ended.more_bytes < MOST_BYTES
    return ended


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _: b"", "it has only 0 bytes"),
        (lambda content: content[:-9], "is cut short"),
        (lambda content: b"\xff" * len(content), "its header would have 18446744073709551615"),
        (lambda content: (2**33).to_bytes(8, "little") + content[8:], "would have 8589934592"),
        (lambda content: content[:8] + b"[" * (len(content) - 8), "has a corrupt header"),
        (lambda content: content.replace(b"[260,64]", b"[261,64]"), "which do not fit its shape"),
    ],
)
def test_spoiled_weights_are_named(model: Path, spoil: Callable[[bytes], bytes], said: str) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(spoil(weights.read_bytes()))
    told = loaded(model).told
    assert told is not None
    assert told[0] is Reason.MODEL_UNUSABLE
    assert told[1].startswith(f"model.safetensors of {URI} ")
    assert said in told[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 10**9},
        {"hidden_size": 64 * 400},
        {"intermediate_size": 10**7},
        {"vocab_size": 10**9},
        {"vocab_size": 10**7},
        {"num_hidden_layers": 9},
    ],
    ids=str,
)
def test_a_configuration_of_a_giant_is_held_against_the_weights(
    model: Path, changes: dict[str, int]
) -> None:
    """Before memory is taken for what the weights do not have: in training, too."""
    said = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(said | changes))
    cpu = torch.device("cpu")
    for read in (
        lambda: load_base_model(model, URI, torch.float32, cpu),
        lambda: base.load(model, URI, torch.float32, cpu, quantised=False),
    ):
        ended = measured(read)
        assert ended.told is not None
        assert f"config.json of {URI} describes a model of " in ended.told[1]
        assert "and its weights have 107328" in ended.told[1]
        assert ended.processor_seconds < MOST_SECONDS
        assert ended.more_bytes < MOST_BYTES


@seed(7)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(edits=st.lists(st.tuples(st.integers(0, 2600), st.binary(max_size=3), st.integers(0, 4))))
def test_weights_with_spoiled_bytes_are_refused_or_loaded(
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    edits: list[tuple[int, bytes, int]],
) -> None:
    folder = tmp_path_factory.getbasetemp() / "spoiled-weights"
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    content = bytearray((folder / "model.safetensors").read_bytes())
    for position, inserted, removed in edits:
        content[position : position + removed] = inserted
    (folder / "model.safetensors").write_bytes(content)
    told = loaded(folder).told
    assert told is None or told[0] is Reason.MODEL_UNUSABLE


# Code of the model's own


def test_code_that_lies_beside_a_model_is_not_run(model: Path, tmp_path: Path) -> None:
    """Neither for the tokenizer nor for the model, and nobody is asked for leave."""
    ran = tmp_path / "ran"
    (model / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own"]}
    for name in ("config.json", "tokenizer_config.json"):
        said = json.loads((model / name).read_text())
        changed = {**said, "auto_map": own, "model_type": "own", "tokenizer_class": "Own"}
        (model / name).write_text(json.dumps(changed))
    with pytest.raises(TrainerError):
        load_chat_format(model, URI)
    refused(
        lambda: load_base_model(model, URI, torch.float32, torch.device("cpu")),
        "without remote code",
    )
    assert not ran.exists()


def test_pickled_weights_are_not_opened(model: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(
        pickle.dumps(Program(f"open({str(ran)!r}, 'w')"), protocol=2)
    )
    refused(
        lambda: load_base_model(model, URI, torch.float32, torch.device("cpu")),
        "model.safetensors",
    )
    assert not ran.exists()


class Program:
    """Runs a program in whoever unpickles it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, (self.text,)


# Links, pipes and devices


def test_a_link_out_of_the_volume_is_refused(model: Path, tmp_path: Path) -> None:
    """It might lead to the keys in this pod's environment."""
    secret = tmp_path / "environ"
    secret.write_text("{}")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").symlink_to(secret)
    refused(lambda: described_model(source(model)), "tokenizer.json is a link that leads out")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").symlink_to("../../environ")
    refused(lambda: described_model(source(model)), "tokenizer.json is a link that leads out")


def test_a_model_that_is_a_link_out_of_the_volume_is_refused(model: Path, tmp_path: Path) -> None:
    volume = tmp_path / "other"
    volume.mkdir()
    (volume / "tiny").symlink_to(model)
    refused(lambda: described_model(source(volume / "tiny")), "tiny is a link that leads out")


def test_links_within_the_volume_are_followed(model: Path) -> None:
    """As the hub's cache has them, when somebody copied it as it is."""
    blobs = model.parent / "blobs"
    blobs.mkdir()
    for path in list(model.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("..") / "blobs" / path.name)
    assert load_chat_format(described_model(source(model)), URI)
    assert model_folder(source(model)) == model


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_a_pipe_is_not_opened(model: Path, name: str) -> None:
    (model / name).unlink()
    os.mkfifo(model / name)
    refused(lambda: described_model(source(model)), f"{name} is a pipe or a device")


def test_an_adapter_of_pipes_and_links_is_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "volume" / "tuned"
    folder.mkdir(parents=True)
    adapter = PlannedSource(uri="pvc://adapters/tuned", path=str(folder))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    os.mkfifo(folder / "adapter_model.safetensors")
    refused(lambda: adapter_folder(adapter, "sha256:"), "adapter_model.safetensors is a pipe")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.safetensors").symlink_to("/dev/zero")
    refused(lambda: adapter_folder(adapter, "sha256:"), "is a link that leads out of the volume")
