"""The file that init writes is what the API takes, and explains itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tunesmith.api.method import Method
from tunesmith.commandline import asking
from tunesmith.commandline.init import finetune_yaml, mistakes
from tunesmith.commandline.plan import Verdict, checked, documents

from tests.unit.commandline.asked import init, run

HUB = ("--base-model", "hf://meta-llama/Llama-3.1-8B-Instruct")
NEEDED = ("--name", "triage", *HUB, "--dataset", "pvc://data/t.jsonl", "--output", "pvc://adapters")
DIGEST = "sha256:" + "a" * 64
ALL = (
    *("--name", "triage", *HUB, "--base-model-secret", "hub"),
    *("--dataset", "https://example.com/t.jsonl", "--dataset-digest", DIGEST),
    *("--dataset-secret", "door", "--output", "s3://bucket/folder", "--output-secret", "store"),
    *("--gpus", "2", "--memory", "64Gi", "--gpu-memory", "80Gi", "--review", "--serve", "support"),
)


def admitted(text: str) -> list[dict[str, Any]]:
    found = documents(text)
    for each in found:
        assert checked(each, "no cluster").verdict is Verdict.NOT_ASKED
    return found


def test_what_is_necessary_is_enough(tmp_path: Path) -> None:
    (job,) = admitted(init(tmp_path, *NEEDED))
    assert job["spec"]["baseModel"] == {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"}
    assert job["spec"]["resources"] == {"gpus": 1}


@pytest.mark.parametrize("method", list(Method))
def test_every_flag_reaches_its_field(tmp_path: Path, method: Method) -> None:
    job, deployment = admitted(init(tmp_path, *ALL, "--method", method))
    spec = job["spec"]
    assert spec["method"] == method
    assert spec["baseModel"]["secretRef"] == {"name": "hub"}
    assert spec["dataset"] == {
        "uri": "https://example.com/t.jsonl",
        "digest": DIGEST,
        "secretRef": {"name": "door"},
        "review": {"required": True},
    }
    assert spec["output"] == {"uri": "s3://bucket/folder", "secretRef": {"name": "store"}}
    assert spec["resources"] == {"gpus": 2, "gpuMemory": "80Gi", "memory": "64Gi"}
    assert deployment["metadata"]["name"] == "support"
    assert deployment["spec"]["baseModel"] == spec["baseModel"]


def test_every_choice_has_its_reason_above_it(tmp_path: Path) -> None:
    lines = init(tmp_path, *ALL).splitlines()
    for field in ("baseModel:", "dataset:", "method:", "output:", "resources:", "evaluation:"):
        place = next(n for n, line in enumerate(lines) if line.startswith(f"  {field}"))
        assert lines[place - 1].startswith("  # "), field


def test_a_name_that_yaml_would_read_as_something_else_stays_a_name(tmp_path: Path) -> None:
    (job,) = admitted(init(tmp_path, *NEEDED, "--name", "yes"))
    assert job["metadata"]["name"] == "yes"


def test_without_a_terminal_the_missing_flags_are_named() -> None:
    done = run("init", "--name", "triage", *HUB)
    assert done.exit_code == 2
    assert "give --dataset, --output" in done.output


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("mine")
    done = run("init", "-f", str(tmp_path / "mine.yaml"), *NEEDED)
    assert done.exit_code == 1
    assert "--force" in done.output
    assert (tmp_path / "mine.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--name", "Triage"), "--name"),
        (("--name", "a" * 41), "at most 40"),
        (("--base-model", "meta-llama/Llama"), "--base-model: write hf://"),
        (("--dataset", "pvc://data"), "--dataset: write pvc://CLAIM/PATH"),
        (("--dataset", "pvc://data/../t.jsonl"), "--dataset: write pvc://CLAIM/PATH"),
        (("--dataset", "https://example.com/t.jsonl"), "--dataset-digest"),
        (("--dataset-secret", "door"), "--dataset-secret"),
        (("--base-model", "s3://bucket/model", "--serve", "support"), "--serve"),
    ],
)
def test_what_the_api_would_refuse_is_refused_in_the_words_of_the_flags(
    flags: tuple[str, ...], said: str
) -> None:
    done = run("init", "-f", "-", *NEEDED, *flags)
    assert done.exit_code == 2
    assert said in done.output


def test_on_a_terminal_what_the_flags_do_not_say_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter(["triage", "pvc://data/t.jsonl", "", "QLoRA", "", "y", "y", ""])
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: next(answers))
    unsaid = dict.fromkeys(
        ("name", "dataset", "output", "method", "gpus", "memory", "gpu_memory", "review", "serve")
    )
    choices = asking.choices({**unsaid, "base_model": HUB[1]}, is_terminal=True)
    assert not list(mistakes(choices))
    job, deployment = yaml.safe_load_all(finetune_yaml(choices))
    assert job["spec"]["method"] == "QLoRA"
    assert job["spec"]["output"] == {"uri": "pvc://adapters"}
    assert job["spec"]["dataset"]["review"] == {"required": True}
    assert deployment["metadata"]["name"] == "triage"
