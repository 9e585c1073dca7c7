"""From an adapter to a measured difference, with a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api import digests
from tunesmith.api.evalrun import EvaluationPhase, EvaluationProgress
from tunesmith.api.evaluation_suite import Gate, Metric, OnInconclusive, PromptedBase
from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PROMPT_EXAMPLES_FILE,
    EvaluationOutcome,
    EvaluationPlan,
    PlannedQuestions,
    Reason,
)
from tunesmith.api.verdict import ConfidenceInterval, Verdict, judge

pytest.importorskip("torch")
pytest.importorskip("trl")

from tunesmith_trainer.evaluate.measured import Answer, Side
from tunesmith_trainer.evaluate.recipe import evaluate
from tunesmith_trainer.evaluate.statistics import compare
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.progress import ProgressBoard

from tests.unit.trainer.given import Trained, evaluation_plan


def test_the_adapter_beats_its_base(trained: Trained, tmp_path: Path) -> None:
    board, folder = ProgressBoard(), tmp_path / "run"
    output = {"uri": "pvc://answers/run", "path": str(folder)}
    outcome: EvaluationOutcome = evaluate(evaluation_plan(trained, output=output), board)
    (result,) = outcome.results
    assert (result.metric, result.items) == (Metric.ACCURACY, 8)
    assert (result.base, result.adapter, result.difference) == (0, 100, 100)
    assert result.confidence_interval is not None
    assert result.confidence_interval.lower > 0
    assert result.asked.data == trained.outcome.dataset.held_out_digest
    assert outcome.base_model_digest == trained.outcome.artifact.base_model_digest
    assert outcome.digest == trained.outcome.artifact.digest
    progress = board.report().evaluation
    assert progress is not None
    assert (progress.phase, progress.items_done, progress.items_total) == (
        EvaluationPhase.DONE,
        16,
        16,
    )
    rows = [json.loads(each) for each in (folder / "items-held-out.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    assert all(row["adapter"]["answer"] == "yes" != row["base"]["answer"] for row in rows)
    assert outcome.report is not None
    assert outcome.report.uri == "pvc://answers/run"
    assert "held-out" in (folder / "report.html").read_text()


def test_eight_items_do_not_exclude_a_small_loss_although_none_was_seen(
    trained: Trained,
) -> None:
    """The adapter against itself: no difference at all, and still no proof of none."""
    plan = evaluation_plan(trained)
    (result,) = evaluate(plan, ProgressBoard()).results
    same = suite_result_of_ties(result.items)
    assert judge(-3, same) is Verdict.INCONCLUSIVE


class TestPromptedBase:
    def test_the_adapter_must_beat_the_better_side_of_the_base(self, trained: Trained) -> None:
        """The base model is no good at either, so both figures are there and the gate is fair."""
        outcome = evaluate(with_prompts(trained), ProgressBoard())
        (result,) = outcome.results
        assert result.prompted_base is None or result.prompted_base >= 0
        assert result.adapter == 100

    def test_the_prompt_is_chosen_on_rows_that_are_not_asked(
        self, trained: Trained, tmp_path: Path
    ) -> None:
        output = {"uri": "pvc://answers/run", "path": str(tmp_path / "run")}
        evaluate(with_prompts(trained, output=output), ProgressBoard())
        record = json.loads((tmp_path / "run" / "results.json").read_text())["suites"][0]
        names = [each["prompt"] for each in record["triedPrompts"]]
        assert names == [
            "as it is",
            "prompt 1",
            "as it is, with 1 solved example",
            "prompt 1, with 1 solved example",
            "as it is, with 4 solved examples",
            "prompt 1, with 4 solved examples",
        ]
        held_out = (trained.folder / HELD_OUT_FILE).read_text().splitlines()
        examples = (trained.folder / PROMPT_EXAMPLES_FILE).read_text().splitlines()
        assert examples
        assert not set(held_out) & set(examples)


class TestBaseResults:
    def test_the_second_adapter_does_not_pay_for_the_base_again(
        self, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = {"uri": "pvc://answers/base", "path": str(tmp_path / "base")}
        first = evaluate(evaluation_plan(trained, baseResults=kept), ProgressBoard())
        asked = count_answers(monkeypatch)
        again = evaluate(evaluation_plan(trained, baseResults=kept), ProgressBoard())
        assert again == first
        assert asked == {Side.ADAPTER: 8}

    def test_a_file_that_cannot_be_read_is_made_again(
        self, trained: Trained, tmp_path: Path
    ) -> None:
        kept = {"uri": "pvc://answers/base", "path": str(tmp_path / "base")}
        plan = evaluation_plan(trained, baseResults=kept)
        first = evaluate(plan, ProgressBoard())
        (file,) = (tmp_path / "base").rglob("*.jsonl")
        whole = file.read_text()
        file.write_text(whole[:-20])
        assert evaluate(plan, ProgressBoard()) == first
        assert file.read_text() == whole

    def test_other_questions_are_other_files(self, trained: Trained, tmp_path: Path) -> None:
        kept = {"uri": "pvc://answers/base", "path": str(tmp_path / "base")}
        for tokens in (4, 8):
            plan = evaluation_plan(trained, baseResults=kept)
            suite = plan.suites[0].suite.model_copy(update={"max_new_tokens": tokens})
            changed = plan.suites[0].model_copy(update={"suite": suite})
            evaluate(plan.model_copy(update={"suites": [changed]}), ProgressBoard())
        assert len(list((tmp_path / "base").rglob("*.jsonl"))) == 2


class TestMoreItems:
    def test_are_asked_until_the_gate_is_decided(self, trained: Trained) -> None:
        (result,) = evaluate(extending(trained, first=2, until=0), ProgressBoard()).results
        assert result.items in (4, 8)
        assert result.confidence > 95
        assert result.confidence_interval is not None
        assert judge(0, result.confidence_interval) is Verdict.PASSED

    def test_end_with_the_last_one(self, trained: Trained) -> None:
        (result,) = evaluate(extending(trained, first=2, until=99), ProgressBoard()).results
        assert result.items == 8


@pytest.mark.parametrize("kind", ["prompted", "extending"])
def test_progress_only_grows_and_ends_at_all(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    shown: list[tuple[int, int]] = []
    board = ProgressBoard()
    original = board.evaluation

    def watched(**changes: Any) -> EvaluationProgress:
        if "items_done" in changes:
            shown.append((changes["items_done"], changes["items_total"]))
        return original(**changes)

    monkeypatch.setattr(board, "evaluation", watched)
    plan = with_prompts(trained) if kind == "prompted" else extending(trained, first=2, until=99)
    evaluate(plan, board)
    done = [each for each, _ in shown]
    assert done == sorted(done)
    assert shown[-1][0] == shown[-1][1]
    if kind == "prompted":
        assert len({total for _, total in shown}) <= 2, "announced once, less if no prompt helps"


def test_a_base_model_can_be_measured_alone(trained: Trained) -> None:
    plan = evaluation_plan(trained, adapter=None, digest=None)
    outcome = evaluate(plan, ProgressBoard())
    (result,) = outcome.results
    assert outcome.digest is None
    assert (result.base, result.adapter, result.confidence_interval) == (0, None, None)


def test_a_merged_model_is_compared_with_its_base(trained: Trained, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(str(trained.plan.base_model.path))
    folder = tmp_path / "merged"
    PeftModel.from_pretrained(base, str(trained.folder)).merge_and_unload().save_pretrained(folder)
    plan = evaluation_plan(
        trained,
        adapter=None,
        mergedModel={"uri": "pvc://models/merged", "path": str(folder)},
        digest=digests.base_model_digest(folder),
    )
    (result,) = evaluate(plan, ProgressBoard()).results
    assert (result.base, result.adapter) == (0, 100)
    with pytest.raises(TrainerError, match="was changed after it was merged"):
        evaluate(plan.model_copy(update={"digest": "sha256:" + "0" * 64}), ProgressBoard())


def test_the_same_rows_are_asked_before_training_and_after_it(trained: Trained) -> None:
    """Before, the evaluator splits the dataset; after, the artifact has the held-out rows."""
    after = evaluation_plan(trained)
    dataset = trained.plan.dataset
    before = after.suites[0].model_copy(
        update={
            "questions": PlannedQuestions(
                uri=dataset.uri, path=dataset.path, held_out=trained.plan.held_out
            )
        }
    )
    plan = after.model_copy(update={"adapter": None, "digest": None, "suites": [before]})
    (first,), (second,) = (
        evaluate(plan, ProgressBoard()).results,
        evaluate(after, ProgressBoard()).results,
    )
    assert first.asked == second.asked
    assert first.base == second.base


def suite_result_of_ties(items: int) -> ConfidenceInterval:
    return compare([100.0] * items, [100.0] * items, [""] * items, 95.0).interval


def with_prompts(trained: Trained, **changes: Any) -> EvaluationPlan:
    plan = evaluation_plan(trained, **changes)
    examples = PlannedQuestions(
        uri="pvc://adapters/examples", path=str(trained.folder / PROMPT_EXAMPLES_FILE)
    )
    suite = plan.suites[0].suite.model_copy(
        update={"prompted_base": PromptedBase(system_prompts=["Say yes."])}
    )
    changed = plan.suites[0].model_copy(update={"suite": suite, "prompt_examples": examples})
    return plan.model_copy(update={"suites": [changed]})


def extending(trained: Trained, *, first: int, until: float) -> EvaluationPlan:
    plan = evaluation_plan(trained)
    suite = plan.suites[0].suite.model_copy(update={"max_items": first})
    gate = Gate(suite=suite.name, minimum_difference=until, on_inconclusive=OnInconclusive.EXTEND)
    changed = plan.suites[0].model_copy(update={"suite": suite, "gates": (gate,)})
    return plan.model_copy(update={"suites": [changed]})


def count_answers(monkeypatch: pytest.MonkeyPatch) -> dict[Side, int]:
    """How many answers each side is really asked for, from now on."""
    from tunesmith_trainer.evaluate.questions import QuestionSuite

    asked: dict[Side, int] = {}
    original = QuestionSuite.answers

    def counted(suite: QuestionSuite, side: Side, start: int, stop: int) -> list[Answer]:
        asked[side] = asked.get(side, 0) + stop - start
        return original(suite, side, start, stop)

    monkeypatch.setattr(QuestionSuite, "answers", counted)
    return asked


def test_an_adapter_of_zeros_is_found_out(trained: Trained, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "zeros"
    shutil.copytree(trained.folder, folder)
    weights = folder / digests.ADAPTER_WEIGHTS
    save_file({name: tensor * 0 for name, tensor in load_file(weights).items()}, weights)
    plan = evaluation_plan(
        trained,
        adapter={"uri": "pvc://adapters/zeros", "path": str(folder)},
        digest=digests.adapter_digest(folder),
    )
    with pytest.raises(TrainerError, match="pvc://adapters/zeros changes nothing") as raised:
        evaluate(plan, ProgressBoard())
    assert raised.value.reason is Reason.ADAPTER_NOT_APPLIED


def test_another_adapter_than_the_plan_names_is_refused(trained: Trained) -> None:
    plan = evaluation_plan(trained, digest="sha256:" + "0" * 64)
    with pytest.raises(TrainerError, match="was changed after") as raised:
        evaluate(plan, ProgressBoard())
    assert raised.value.reason is Reason.ADAPTER_CHANGED


def test_a_folder_without_an_adapter_is_named(trained: Trained, tmp_path: Path) -> None:
    adapter = {"uri": "pvc://adapters/none", "path": str(tmp_path / "none")}
    with pytest.raises(TrainerError, match="pvc://adapters/none holds no adapter") as raised:
        evaluate(evaluation_plan(trained, adapter=adapter), ProgressBoard())
    assert raised.value.reason is Reason.ADAPTER_NOT_FOUND
