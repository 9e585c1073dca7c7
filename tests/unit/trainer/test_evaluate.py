"""From an adapter to a measured difference, with a tiny model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api import digests
from tunesmith.api.evalrun import Asked, EvaluationPhase, EvaluationProgress
from tunesmith.api.evaluation_suite import Gate, Metric, OnInconclusive, PromptedBase
from tunesmith.api.trainer_contract import (
    HELD_OUT_FILE,
    PROMPT_EXAMPLES_FILE,
    EvaluationOutcome,
    EvaluationPlan,
    PlannedQuestions,
    PlannedSource,
    Reason,
)
from tunesmith.api.verdict import Verdict, judge

pytest.importorskip("torch")
pytest.importorskip("trl")

from tunesmith_trainer.data.formats import Conversation, Message, Role
from tunesmith_trainer.evaluate import prompting
from tunesmith_trainer.evaluate.measured import Answer, Measured, Question, Side
from tunesmith_trainer.evaluate.recipe import evaluate
from tunesmith_trainer.evaluate.suite_result import suite_result
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
    assert result.asked is not None
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


class TestPromptedBase:
    def test_the_adapter_must_beat_both_sides_of_the_base(self) -> None:
        """The smaller difference may be the surer one: the other's doubt counts all the same."""
        questions = [Question(f"{number}", "yes") for number in range(200)]

        def answers(*right: range) -> list[Answer]:
            return [
                Answer("", 100.0 if any(number in each for each in right) else 0.0)
                for number in range(200)
            ]

        adapter = answers(range(100))
        plain = answers(range(40), range(140, 182))  # many changes both ways: +9, in doubt
        prompted = answers(range(86))  # few changes, one way: +7, sure
        sides = {Side.BASE: plain, Side.PROMPTED_BASE: prompted, Side.ADAPTER: adapter}
        asked = Asked(data="sha256:0", prompts="sha256:0")
        measured = Measured("s", Metric.ACCURACY, questions, sides, asked)
        result = suite_result(measured, 95.0)
        assert (result.base, result.prompted_base, result.difference) == (41, 43, 7)
        assert result.confidence_interval is not None
        assert judge(0, result.confidence_interval) is Verdict.INCONCLUSIVE
        alone = replace(measured, answers={Side.BASE: prompted, Side.ADAPTER: adapter})
        interval = suite_result(alone, 95.0).confidence_interval
        assert interval is not None
        assert judge(0, interval) is Verdict.PASSED

    def test_a_single_example_is_too_few_to_choose_by(self, trained: Trained) -> None:
        plan = with_prompts(trained)
        path = trained.folder / "one.jsonl"
        path.write_text((trained.folder / PROMPT_EXAMPLES_FILE).read_text().splitlines()[0])
        one = PlannedQuestions(uri="pvc://adapters/one", path=str(path))
        suite = plan.suites[0].model_copy(update={"prompt_examples": one})
        with pytest.raises(TrainerError, match="at least 2 rows that are not asked, and there are"):
            evaluate(plan.model_copy(update={"suites": [suite]}), ProgressBoard())

    @pytest.mark.parametrize(("rows", "shown"), [(2, 1), (5, 2), (8, 4), (28, 4)])
    def test_a_row_is_shown_or_tried_on(self, rows: int, shown: int) -> None:
        examples = [
            Conversation((Message(Role.USER, str(each)), Message(Role.ASSISTANT, "yes")))
            for each in range(rows)
        ]
        first, rest = prompting.parts(examples)
        assert (len(first), [*first, *rest]) == (shown, examples)

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

    @pytest.mark.parametrize("file", ["tokenizer_config.json", "generation_config.json"])
    def test_answers_of_another_tokenizer_or_end_are_not_taken(
        self, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
    ) -> None:
        """The base model's digest is of its weights alone."""
        kept = {"uri": "pvc://answers/base", "path": str(tmp_path / "base")}
        evaluate(evaluation_plan(trained, baseResults=kept), ProgressBoard())
        other = tmp_path / "other"
        shutil.copytree(str(trained.plan.base_model.path), other)
        settings = json.loads((other / file).read_text())
        settings |= {"eos_token_id": [0, 1]} if file.startswith("gen") else {"note": "changed"}
        (other / file).write_text(json.dumps(settings))
        asked = count_answers(monkeypatch)
        base = {"uri": "pvc://models/tiny", "path": str(other)}
        evaluate(evaluation_plan(trained, baseModel=base, baseResults=kept), ProgressBoard())
        assert asked[Side.BASE] == 8

    def test_a_larger_run_asks_only_for_the_rest(
        self, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = PlannedSource(uri="pvc://answers/base", path=str(tmp_path / "base"))
        evaluate(
            extending(trained, first=2, until=None).model_copy(update={"base_results": kept}),
            ProgressBoard(),
        )
        asked = count_answers(monkeypatch)
        evaluate(evaluation_plan(trained, baseResults=kept.to_json()), ProgressBoard())
        assert asked == {Side.BASE: 6, Side.ADAPTER: 8}

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
    rows = trained.folder.parents[1] / "rows.jsonl"
    before = after.suites[0].model_copy(
        update={
            "questions": PlannedQuestions(
                uri=trained.plan.dataset_uri, path=str(rows), held_out=trained.plan.held_out
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


def extending(trained: Trained, *, first: int, until: float | None) -> EvaluationPlan:
    """So many items at first, and more until the gate is decided, if there is one."""
    plan = evaluation_plan(trained)
    suite = plan.suites[0].suite.model_copy(update={"max_items": first})
    gates = [
        Gate(suite=suite.name, minimum_difference=each, on_inconclusive=OnInconclusive.EXTEND)
        for each in ([] if until is None else [until])
    ]
    changed = plan.suites[0].model_copy(update={"suite": suite, "gates": tuple(gates)})
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


def test_a_question_that_does_not_fit_is_named_and_not_cut(
    trained: Trained, tmp_path: Path
) -> None:
    row = {
        "messages": [{"role": "user", "content": "a" * 600}, {"role": "assistant", "content": "b"}]
    }
    rows = tmp_path / "long.jsonl"
    rows.write_text(f"{json.dumps(row)}\n" + (trained.folder / HELD_OUT_FILE).read_text())
    plan = evaluation_plan(trained)
    questions = PlannedQuestions(uri="pvc://data/long.jsonl", path=str(rows))
    suite = plan.suites[0].model_copy(update={"questions": questions})
    with pytest.raises(TrainerError, match="the longest question has 6") as raised:
        evaluate(plan.model_copy(update={"suites": [suite]}), ProgressBoard())
    assert raised.value.reason is Reason.EXAMPLES_TOO_LONG


def test_an_adapter_that_rewrites_its_base_cannot_be_compared(
    trained: Trained, tmp_path: Path
) -> None:
    """PiSSA takes the adapter out of the weights when it is loaded; off, the base lacks it."""
    folder = tmp_path / "pissa"
    shutil.copytree(trained.folder, folder)
    config = json.loads((folder / digests.ADAPTER_CONFIG).read_text())
    (folder / digests.ADAPTER_CONFIG).write_text(
        json.dumps(config | {"init_lora_weights": "pissa"})
    )
    plan = evaluation_plan(
        trained,
        adapter={"uri": "pvc://adapters/pissa", "path": str(folder)},
        digest=digests.adapter_digest(folder),
    )
    with pytest.raises(TrainerError, match="changes the base model even when it is switched off"):
        evaluate(plan, ProgressBoard())


def test_an_adapter_of_which_half_is_missing_is_refused(trained: Trained, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(trained.folder, folder)
    weights = folder / digests.ADAPTER_WEIGHTS
    kept = {name: each for name, each in load_file(weights).items() if ".layers.0." in name}
    save_file(kept, weights)
    plan = evaluation_plan(
        trained,
        adapter={"uri": "pvc://adapters/half", "path": str(folder)},
        digest=digests.adapter_digest(folder),
    )
    with pytest.raises(TrainerError, match="pvc://adapters/half does not fit the base model"):
        evaluate(plan, ProgressBoard())


def test_an_adapter_of_no_numbers_is_refused(trained: Trained, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "nan"
    shutil.copytree(trained.folder, folder)
    weights = folder / digests.ADAPTER_WEIGHTS
    save_file({name: each * float("nan") for name, each in load_file(weights).items()}, weights)
    plan = evaluation_plan(
        trained,
        adapter={"uri": "pvc://adapters/nan", "path": str(folder)},
        digest=digests.adapter_digest(folder),
    )
    with pytest.raises(TrainerError, match="log-likelihoods that are no numbers"):
        evaluate(plan, ProgressBoard())


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
