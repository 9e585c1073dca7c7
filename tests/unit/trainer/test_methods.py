"""What each method publishes can be loaded by the libraries that serve it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunesmith.api import digests
from tunesmith.api.job_status import ArtifactKind

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from tunesmith_trainer.failure import Preempted  # noqa: E402
from tunesmith_trainer.progress import ProgressBoard  # noqa: E402
from tunesmith_trainer.train.recipe import train  # noqa: E402

from tests.unit.trainer.given import MEMORY, TRAINING, training_plan, write_prepared  # noqa: E402
from tests.unit.trainer.test_resume import Told, finish, interrupt_at, plan_in  # noqa: E402

FULL = {
    "memory": {**MEMORY, "method": "Full"},
    "training": {**TRAINING, "learningRate": 0.002, "epochs": 2},
}


def answer_loss(model, told: Told) -> float:  # type: ignore[no-untyped-def]
    """Of a held-out example, by a model that was loaded again."""
    from tunesmith_trainer.data.chat import load_chat_format
    from tunesmith_trainer.prepare.prepared import read_examples

    chat = load_chat_format(told.folder, "tiny")
    example = chat.example(read_examples(told.folder / "heldout.jsonl")[0])
    with torch.no_grad():
        tokens, labels = torch.tensor([example.tokens]), torch.tensor([example.labels])
        return float(model(input_ids=tokens, labels=labels).loss)


def test_full_publishes_a_model(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    told = finish(plan_in(tiny_model, tmp_path, **FULL), tmp_path)
    artifact = told.outcome.artifact
    assert (artifact.kind, artifact.rank) == (ArtifactKind.MODEL, None)
    assert artifact.digest == digests.base_model_digest(told.folder)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    tuned = AutoModelForCausalLM.from_pretrained(told.folder)
    assert tuned.dtype == base.dtype
    assert answer_loss(tuned, told) < answer_loss(base, told) / 2
    # A second attempt finds it.
    assert train(plan_in(tiny_model, tmp_path, **FULL), ProgressBoard()) == told.outcome


@pytest.mark.parametrize("method", ["DoRA", "QLoRA", "QDoRA"])
def test_adapters_of_every_method_are_pefts(tiny_model: Path, tmp_path: Path, method: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    memory = {**MEMORY, "method": method}
    told = finish(plan_in(tiny_model, tmp_path, memory=memory), tmp_path)
    assert told.losses[-1] < told.losses[0] / 4
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    before = answer_loss(base, told)
    adapted = PeftModel.from_pretrained(base, str(told.folder))
    assert adapted.peft_config["default"].use_dora == method.endswith("DoRA")
    assert answer_loss(adapted, told) < before / 2
    assert told.lineage.plan.memory.method == method
    assert "bitsandbytes" in told.lineage.libraries


@pytest.mark.parametrize("optimizer", ["AdamW8bit", "PagedAdamW8bit"])
def test_what_8_bit_optimisers_remember_comes_back(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    memory = {**MEMORY, "method": "Full", "optimizer": optimizer}
    digest = []
    for name, interrupted in (("whole", False), ("cut", True)):
        folder = tmp_path / name
        folder.mkdir()
        write_prepared(folder)
        plan = training_plan(tiny_model, folder, **{**FULL, "memory": memory})
        if interrupted:
            with monkeypatch.context() as patch:
                interrupt_at(patch, 3)
                with pytest.raises(Preempted):
                    train(plan, ProgressBoard())
        digest.append(train(plan, ProgressBoard()).artifact.digest)
    assert digest[0] == digest[1]
