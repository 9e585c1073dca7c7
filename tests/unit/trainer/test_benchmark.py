"""MMLU, five-shot and offline, on both sides of an adapter. The questions are our own."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from tunesmith.api.evaluation_suite import Benchmark, BenchmarkSize, Metric
from tunesmith.api.trainer_contract import ExitCode, Reason

pytest.importorskip("torch")
pytest.importorskip("lm_eval")

from tunesmith_trainer.benchmarks import tasks
from tunesmith_trainer.benchmarks.prepared import PreparedData
from tunesmith_trainer.evaluate import benchmark as benchmarks
from tunesmith_trainer.evaluate.benchmark import benchmark_suite
from tunesmith_trainer.evaluate.harness import HarnessSuite
from tunesmith_trainer.evaluate.measured import Answer, Side
from tunesmith_trainer.evaluate.stratified import first_of_each, in_turn
from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.main import main

from tests.unit.trainer.mmlu_data import mmlu_subjects, write_mmlu
from tests.unit.trainer.two_sides import two_sides

#: Unequal, so that weighting by size shows.
SIZES = (2, 3, 4)
URI = "pvc://bench/mmlu"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mmlu")
    hub = write_mmlu(folder / "hub", mmlu_subjects(), SIZES)
    arguments = ["fetch-tasks", "--task", "mmlu", "--output", str(folder / "data")]
    assert main([*arguments, "--from", str(hub)]) == ExitCode.SUCCEEDED
    return folder / "data"


@pytest.fixture(scope="module")
def suite(data: Path) -> HarnessSuite:
    return benchmark_suite("mmlu", Benchmark(data=URI), data)


@pytest.fixture(scope="module")
def sides(tiny_model: Path) -> Any:
    return two_sides(tiny_model)


@pytest.fixture(scope="module")
def answers(suite: HarnessSuite, sides: Any) -> dict[Side, list[Answer]]:
    ready = suite.between(sides)
    return {side: ready.answers(side, 0, len(suite.items)) for side in (Side.BASE, Side.ADAPTER)}


def test_every_subject_is_asked_with_five_solved_examples(suite: HarnessSuite) -> None:
    assert len({question.group for question in suite.questions}) == 57
    assert len(suite.questions) == suite.first == sum(SIZES) * 19
    assert (suite.metric, suite.approximate) == (Metric.ACCURACY, False)
    for question in suite.questions:
        assert question.prompt.startswith("The following are multiple choice questions")
        assert question.prompt.count("Answer:") == 6
        assert question.prompt.endswith("\nAnswer:")
        assert question.expected in "ABCD"
    version = tasks.lm_eval_version()
    assert suite.asked(3).task == f"mmlu 2 (5-shot, lm-eval {version})"


def mean_score(answers: list[Answer]) -> float:
    return fmean(answer.score for answer in answers if answer.score is not None)


def test_both_sides_answer_and_differ(answers: dict[Side, list[Answer]]) -> None:
    base, adapter = answers[Side.BASE], answers[Side.ADAPTER]
    assert len(base) == len(adapter)
    assert {answer.text for answer in base + adapter} <= set("ABCD")
    assert base != adapter


def test_scores_follow_from_the_answers(
    suite: HarnessSuite, answers: dict[Side, list[Answer]]
) -> None:
    for side in answers.values():
        for question, answer in zip(suite.questions, side, strict=True):
            assert answer.score == 100 * (answer.text == question.expected)


def test_the_score_is_that_of_lm_eval_itself(
    data: Path, sides: Any, answers: dict[Side, list[Answer]]
) -> None:
    """Its own group score, of its own run over whole tasks."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    for side, ours in answers.items():
        loaded = tasks.load_tasks("mmlu", None, PreparedData(data, URI, "mmlu").load)
        with sides.on(side) as model:
            results = simple_evaluate(
                model=model,
                tasks=[loaded.group],
                task_manager=TaskManager(include_defaults=False),
                bootstrap_iters=0,
            )
        theirs = results["groups"]["mmlu"]["acc,none"]
        assert 100 * theirs == pytest.approx(mean_score(ours), abs=1e-9)


def test_a_part_is_answered_as_in_the_whole(
    suite: HarnessSuite, sides: Any, answers: dict[Side, list[Answer]]
) -> None:
    part = suite.between(sides).answers(Side.ADAPTER, 60, 75)
    assert part == answers[Side.ADAPTER][60:75]


def test_another_prompt_than_planned_is_found_out(suite: HarnessSuite, sides: Any) -> None:
    task = suite.items[0].task
    before = task.config.description
    task.set_config("description", "Something else.\n\n")
    try:
        with pytest.raises(RuntimeError, match="asked something else than planned"):
            suite.between(sides).answers(Side.BASE, 0, 1)
    finally:
        task.set_config("description", before)


def test_the_same_questions_have_the_same_digests(suite: HarnessSuite, data: Path) -> None:
    again = benchmark_suite("mmlu", Benchmark(data=URI), data)
    assert again.asked(100) == suite.asked(100)
    assert again.asked(99).data != suite.asked(100).data
    fewer = benchmark_suite("mmlu", Benchmark(data=URI, shots=1), data)
    assert fewer.asked(100).data == suite.asked(100).data
    assert fewer.asked(100).prompts != suite.asked(100).prompts


def test_every_beginning_is_a_sample_of_all_subjects(suite: HarnessSuite) -> None:
    groups = [question.group for question in suite.questions]
    for length in (57, 80, 114):
        counts = Counter(groups[:length])
        assert len(counts) == 57
        assert max(counts.values()) - min(counts.values()) <= 1


def test_fast_asks_some_of_each_subject_and_says_so(
    suite: HarnessSuite, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "FAST_ITEMS", 2)
    fast = benchmark_suite("mmlu", Benchmark(data=URI, size=BenchmarkSize.FAST), data)
    assert (fast.first, fast.approximate) == (2 * 57, True)
    assert set(Counter(q.group for q in fast.questions[: fast.first]).values()) == {2}
    assert fast.questions == suite.questions, "the same order: fast is a beginning of full"


def test_fast_is_not_approximate_where_it_asks_everything(data: Path) -> None:
    fast = benchmark_suite("mmlu", Benchmark(data=URI, size=BenchmarkSize.FAST), data)
    assert (fast.first, fast.approximate) == (len(fast.questions), False)


def test_subjects_are_shuffled_by_a_seed() -> None:
    items = [f"{subject}{number}" for subject in "ab" for number in range(20)]
    order = in_turn(items, subject=lambda item: item[0])
    assert order == in_turn(items, subject=lambda item: item[0])
    assert sorted(order) == sorted(items)
    assert [item for item in order if item[0] == "a"] != items[:20]
    assert first_of_each("aaab", 2) == 3


def test_templates_in_the_data_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = "{{ 7*7 }} {% for x in () %}"
    monkeypatch.setitem(tasks.FOLDERS, "mmlu_anatomy", "mmlu/default")
    monkeypatch.setattr(
        "tests.unit.trainer.mmlu_data.question",
        lambda subject, _: {
            "question": trap,
            "subject": subject,
            "choices": [trap, "{{ 1/0 }}", "c", "d"],
            "answer": 1,
        },
    )
    hub = write_mmlu(tmp_path / "hub", ["anatomy"], [2])
    arguments = ["fetch-tasks", "--task", "mmlu_anatomy", "--output", str(tmp_path / "data")]
    assert main([*arguments, "--from", str(hub)]) == ExitCode.SUCCEEDED
    suite = benchmark_suite("mmlu", Benchmark(name="mmlu_anatomy", data=URI), tmp_path / "data")
    for question in suite.questions:
        assert question.prompt.count(trap) == 12
        assert question.prompt.count("{{ 1/0 }}") == 6


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"unsafe_code": True}, "runs code"),
        ({"output_type": "loglikelihood_rolling"}, "output type loglikelihood_rolling"),
        ({"doc_to_image": "image"}, "pictures"),
    ],
)
def test_tasks_that_cannot_be_judged_are_refused(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(TrainerError, match=why) as raised:
        tasks.require_judgeable("some_task", settings)
    assert raised.value.reason is Reason.BENCHMARK_UNKNOWN


@pytest.fixture
def sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HarnessSuite:
    """GSM8K with rows of our own: answers are generated, solved examples drawn by chance."""
    from datasets import Dataset

    monkeypatch.setitem(tasks.FOLDERS, "gsm8k", "gsm8k")
    repository = tmp_path / "hub" / "openai" / "gsm8k" / "main"
    repository.mkdir(parents=True)
    for split in ("train", "test"):
        rows = [{"question": f"{number}+1?", "answer": f"#### {number + 1}"} for number in range(9)]
        Dataset.from_list(rows).to_parquet(str(repository / f"{split}-0.parquet"))
    (repository.parent / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - split: train\n    path: main/train-*\n  - split: test\n    path: main/test-*\n---\n"
    )
    arguments = ["fetch-tasks", "--task", "gsm8k", "--output", str(tmp_path / "data")]
    assert main([*arguments, "--from", str(tmp_path / "hub")]) == ExitCode.SUCCEEDED
    return benchmark_suite("sums", Benchmark(name="gsm8k", data=URI, shots=2), tmp_path / "data")


def test_generated_answers_have_the_same_examples_in_every_part(
    sums: HarnessSuite, sides: Any
) -> None:
    for item in sums.items:
        item.task.config.generation_kwargs["max_gen_toks"] = 4
    assert sums.metric is Metric.EXACT_MATCH
    ready = sums.between(sides)
    whole = ready.answers(Side.ADAPTER, 0, 9)
    assert ready.answers(Side.ADAPTER, 5, 9) == whole[5:]
    assert {answer.score for answer in whole} <= {0.0, 100.0}


def test_an_unknown_name_is_answered_with_similar_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.tasks

    folder = Path(lm_eval.tasks.__file__).parent / "mmlu" / "default"
    monkeypatch.setattr(
        "lm_eval.tasks.TaskManager",
        partial(lm_eval.tasks.TaskManager, include_path=folder, include_defaults=False),
    )
    with pytest.raises(
        TrainerError, match=r"no task or group 'mlmu': did you mean .*mmlu"
    ) as raised:
        benchmark_suite("mmlu", Benchmark(name="mlmu"), None)
    assert raised.value.reason is Reason.BENCHMARK_UNKNOWN


def test_code_is_refused_before_anything_of_it_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(tasks.FOLDERS, "humaneval", "humaneval")
    monkeypatch.setattr(
        "lm_eval.tasks._factory.load_yaml", lambda *_, **__: pytest.fail("imported")
    )
    with pytest.raises(TrainerError, match="task humaneval runs code") as raised:
        benchmark_suite("code", Benchmark(name="humaneval"), None)
    assert raised.value.reason is Reason.BENCHMARK_UNKNOWN


def test_one_pass_through_the_model_answers_a_question(
    suite: HarnessSuite, sides: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four letters would otherwise be four passes."""
    rows: list[int] = []
    call = type(sides.base)._model_call

    def counted(model: Any, batch: Any, *more: Any, **settings: Any) -> Any:
        rows.append(len(batch))
        return call(model, batch, *more, **settings)

    monkeypatch.setattr(type(sides.base), "_model_call", counted)
    suite.between(sides).answers(Side.BASE, 0, 20)
    assert sum(rows) == 20
