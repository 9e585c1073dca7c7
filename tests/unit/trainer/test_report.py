"""What an evaluation leaves: a page for people and files for machines."""

from __future__ import annotations

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.evalrun import Asked, SuiteResult
from tunesmith.api.evaluation_suite import EvaluationDataset, Gate, Metric, Suite
from tunesmith.api.trainer_contract import (
    EvaluationOutcome,
    EvaluationPlan,
    PlannedSource,
    PlannedSuite,
)
from tunesmith.api.verdict import ConfidenceInterval
from tunesmith_trainer.evaluate.measured import Answer, Measured, Question, Side
from tunesmith_trainer.evaluate.report.plots import MARGIN, Axis
from tunesmith_trainer.failure import TrainerError

pytest.importorskip("numpy")
pytest.importorskip("jinja2")

from tunesmith_trainer.evaluate.results_folder import write_results

URI = "pvc://reports/team/run"
DIGEST = "sha256:" + "a" * 64
VOID_ELEMENTS = {"meta", "br", "link", "img", "hr", "input"}

Scores = list[float | None]


def measured(scores: dict[Side, Scores], **changes: Any) -> Measured:
    """A suite in which question 3 has the prompt ``question 3``."""
    count = len(scores[Side.BASE])
    groups = changes.pop("groups", [""] * count)
    texts = changes.pop("texts", {})
    return Measured(
        name="held-out",
        questions=[Question(f"question {i}", f"expected {i}", groups[i]) for i in range(count)],
        answers={
            side: [Answer(texts.get(side, f"{side} says {i}"), score) for i, score in enumerate(of)]
            for side, of in scores.items()
        },
        asked=Asked(data=DIGEST, prompts=DIGEST, task="mmlu 2"),
        **{"metric": Metric.TOKEN_F1, **changes},
    )


def mean(scores: Scores) -> float:
    rated = [score for score in scores if score is not None]
    return sum(rated) / len(rated)


def result(suite: Measured) -> SuiteResult:
    """Good enough for a page; the interval is invented."""
    means = {side: mean([each.score for each in of]) for side, of in suite.answers.items()}
    base, prompted = means[Side.BASE], means.get(Side.PROMPTED_BASE)
    adapter = means.get(Side.ADAPTER)
    difference = None if adapter is None else adapter - max(base, prompted or base)
    return SuiteResult(
        suite=suite.name,
        metric=suite.metric,
        items=len(suite.answers[Side.BASE]),
        base=base,
        prompted_base=prompted,
        adapter=adapter,
        difference=difference,
        confidence_interval=(
            None
            if difference is None
            else ConfidenceInterval(lower=difference - 2, upper=difference + 2)
        ),
        detectable=12.5,
        asked=suite.asked,
    )


def plan(*, adapter: bool = True, bounds: tuple[float, ...] = ()) -> EvaluationPlan:
    suite = Suite(name="held-out", dataset=EvaluationDataset(uri="pvc://data/rows.jsonl"))
    gates = tuple(Gate(suite="held-out", minimum_difference=each) for each in bounds)
    return EvaluationPlan(
        owner="team/run",
        base_model=PlannedSource(uri="pvc://models/tiny", path="/mnt/claims/models/tiny"),
        adapter=PlannedSource(uri="pvc://adapters/one") if adapter else None,
        digest=DIGEST if adapter else None,
        suites=[PlannedSuite(suite=suite, gates=gates)],
    )


def write(folder: Path, suite: Measured, **options: Any) -> str:
    """Write a folder of one suite and give the page."""
    evaluated = options.pop("plan", plan(adapter=Side.ADAPTER in suite.answers))
    outcome = EvaluationOutcome(
        digest=evaluated.digest,
        base_model_digest=DIGEST,
        chat_template_digest=DIGEST,
        results=[result(suite)],
    )
    report = write_results(
        PlannedSource(uri=URI, path=str(folder)), evaluated, outcome, [suite], **options
    )
    written = hashlib.sha256((folder / "results.json").read_bytes()).hexdigest()
    assert (report.uri, report.digest) == (URI, f"sha256:{written}")
    return (folder / "report.html").read_text(encoding="utf-8")


def results_of(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text())


def items_of(folder: Path) -> list[Any]:
    lines = (folder / "items-held-out.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


class Balance(HTMLParser):
    """Notes every element, and fails if one is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{tag} is closed and none is open"
        assert self.open.pop() == tag


def parsed(page: str) -> Balance:
    balance = Balance()
    balance.feed(page)
    balance.close()
    assert balance.open == []
    return balance


def everything() -> Measured:
    """A suite with all that a page can show."""
    return measured(
        {
            Side.BASE: [0, 50, 100, 0],
            Side.PROMPTED_BASE: [100, 50, 100, 0],
            Side.ADAPTER: [100, 100, 0, 0],
        },
        groups=["law", "law", "physics", "physics"],
        texts={Side.ADAPTER: "long " * 100},
        best_prompt="Answer in one word.",
        tried_prompts=[("as it is", 40.0), ("prompt 1", 61.5), ("prompt 2", 61.5)],
        failed_percent=1.0,
        win_percent=52.0,
        approximate=True,
    )


def test_the_page_is_whole_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    page = write(tmp_path / "run", everything(), plan=plan(bounds=(-3.0,)), date="2024-06-01")
    elements = parsed(page).seen
    assert not {tag for tag, _ in elements} & {"script", "link", "img", "iframe", "object"}
    assert "url(" not in page
    assert "@import" not in page
    assert {attributes["href"] for tag, attributes in elements if tag == "a"} <= {
        "#suite-held-out",
        "items-held-out.jsonl",
        "results.json",
    }
    for text in ("pvc://models/tiny", "pvc://adapters/one", "2024-06-01", "mmlu 2", DIGEST):
        assert text in page


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "]]>"])
def test_what_a_model_answers_stays_text(tmp_path: Path, hostile: str) -> None:
    suite = measured(
        {Side.BASE: [0, 0], Side.ADAPTER: [100, 0]},
        texts={Side.BASE: hostile, Side.ADAPTER: hostile * 50},
        groups=[hostile, "other"],
        best_prompt=hostile,
        tried_prompts=[(hostile, 1.0)],
    )
    page = write(tmp_path / "run", suite)
    assert not {tag for tag, _ in parsed(page).seen} & {"script", "img"}
    assert hostile not in page
    assert items_of(tmp_path / "run")[0]["base"]["answer"] == hostile


def test_characters_that_a_page_cannot_hold_are_shown_and_kept(tmp_path: Path) -> None:
    answer = "a\x00b\x1bc\x85d\ud800e\r\nf"
    suite = measured({Side.BASE: [0, 0], Side.ADAPTER: [0, 0]}, texts={Side.BASE: answer})
    page = write(tmp_path / "run", suite)
    assert "a␀b␛c\ufffdd\ufffde␍\nf" in page
    assert items_of(tmp_path / "run")[0]["base"]["answer"] == answer


def shown_questions(page: str) -> list[int]:
    texts = page.split('dir="auto">question ')[1:]
    return [int(text.split("<")[0]) for text in texts]


def test_items_whose_score_differs_come_first(tmp_path: Path) -> None:
    page = write(
        tmp_path / "run",
        measured({Side.BASE: [50, 0, 50, 100, None], Side.ADAPTER: [50, 100, 60, 0, 50]}),
    )
    assert shown_questions(page) == [3, 1, 2, 4, 0]


def test_items_are_compared_with_the_better_side_of_the_base_model(tmp_path: Path) -> None:
    scores: dict[Side, Scores] = {
        Side.BASE: [0, 0],
        Side.PROMPTED_BASE: [100, 0],
        Side.ADAPTER: [100, 10],
    }
    page = write(tmp_path / "run", measured(scores))
    assert shown_questions(page) == [1, 0]
    assert "Compared with the prompted base: 1 better, 1 equal." in page


def test_the_page_has_two_hundred_items_and_the_file_has_all(tmp_path: Path) -> None:
    scores: Scores = [0.0] * 250
    page = write(tmp_path / "run", measured({Side.BASE: scores, Side.ADAPTER: [*scores[1:], 100]}))
    assert len(shown_questions(page)) == 200
    assert shown_questions(page)[0] == 249
    assert "200 of 250 items" in page
    assert [row["prompt"] for row in items_of(tmp_path / "run")] == [
        f"question {i}" for i in range(250)
    ]


def test_a_long_text_is_folded_and_a_prompt_shows_its_end(tmp_path: Path) -> None:
    suite = measured({Side.BASE: [0, 0]}, texts={Side.BASE: "beginning " + "x" * 9000})
    suite = Measured(
        **{**vars(suite), "questions": [Question("shots " * 100 + "What?", "yes")] * 2}
    )
    page = write(tmp_path / "run", suite)
    summaries = [part.split("</summary>")[0] for part in page.split("<summary>")[1:]]
    assert len(summaries) == 4
    assert "What?" in summaries[0]
    assert "beginning" in summaries[1]
    assert "x" * 5000 not in page


def test_subjects_are_sorted_and_a_single_item_has_no_interval(tmp_path: Path) -> None:
    write(
        tmp_path / "run",
        measured(
            {Side.BASE: [0, 0, 50, 50, 100], Side.ADAPTER: [100, 50, 50, 50, 0]},
            groups=["risen", "risen", "equal", "equal", "fallen"],
        ),
    )
    subjects = results_of(tmp_path / "run")["suites"][0]["subjects"]
    assert [(each["name"], each["items"], each["difference"]) for each in subjects] == [
        ("fallen", 1, -100),
        ("equal", 2, 0),
        ("risen", 2, 75),
    ]
    assert ["confidenceInterval" in each for each in subjects] == [False, True, True]


def test_a_plot_draws_at_most_a_hundred_subjects_from_both_ends(tmp_path: Path) -> None:
    groups = [f"subject-{i:03}" for i in range(120)]
    page = write(
        tmp_path / "run",
        measured(
            {Side.BASE: [0.0] * 120, Side.ADAPTER: [float(i) for i in range(120)]}, groups=groups
        ),
    )
    plot = page.split("Difference of each subject")[2].split("</svg>")[0]
    drawn = [name for name in groups if f">{name}<" in plot]
    assert drawn == groups[:50] + groups[70:]
    assert len(results_of(tmp_path / "run")["suites"][0]["subjects"]) == 120


def test_the_base_model_alone_has_no_difference(tmp_path: Path) -> None:
    page = write(tmp_path / "run", measured({Side.BASE: [0, 100]}, groups=["law", "physics"]))
    parsed(page)
    assert "measured alone" in page
    assert "<svg" not in page
    assert "Difference" not in page
    (suite,) = results_of(tmp_path / "run")["suites"]
    assert "difference" not in suite
    assert suite["subjects"] == []


def test_a_rating_that_was_not_given_does_not_count(tmp_path: Path) -> None:
    page = write(
        tmp_path / "run",
        measured(
            {Side.BASE: [7, 8, None], Side.ADAPTER: [8, None, 9]},
            metric=Metric.RATING,
            groups=["writing", "coding", "coding"],
        ),
    )
    assert "1 to 10" in page
    assert page.count("does not count") == 2
    assert "1 better, 2 not rated" in page
    assert items_of(tmp_path / "run")[1]["adapter"] == {"answer": "adapter says 1", "score": None}


def test_bounds_are_drawn_and_told_in_words(tmp_path: Path) -> None:
    suite = measured({Side.BASE: [50, 50], Side.ADAPTER: [51, 51]})
    page = write(tmp_path / "run", suite, plan=plan(bounds=(-3.0, 0.0)))
    assert page.count('<text class="bound"') == 2
    assert "the whole interval lies above the bound of \N{MINUS SIGN}3.00" in page
    assert "the bound of +0.00 lies within the interval" in page
    assert results_of(tmp_path / "run")["suites"][0]["bounds"] == [-3.0, 0.0]


def test_the_tried_prompts_are_told_best_first_and_the_chosen_one_in_full(tmp_path: Path) -> None:
    page = write(tmp_path / "run", everything())
    rows = page.split("Prompts that were tried")[1].split("</table>")[0].split("<tr>")[2:]
    names = ("prompt 1", "prompt 2", "as it is")
    assert [name in row for name, row in zip(names, rows, strict=True)] == [True] * 3
    assert ["chosen" in row for row in rows] == [True, False, False]
    assert "Answer in one word.</pre>" in page
    (suite,) = results_of(tmp_path / "run")["suites"]
    assert suite["bestPrompt"] == "Answer in one word."
    assert suite["triedPrompts"][1] == {"prompt": "prompt 1", "score": 61.5}


def test_the_same_run_leaves_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second", "second"):
        write(tmp_path / name, everything())
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("first", "second")
    )
    assert first == second
    assert set(first) == {"results.json", "report.html", "items-held-out.jsonl"}


def test_results_json_vouches_for_the_items(tmp_path: Path) -> None:
    write(tmp_path / "run", everything())
    (suite,) = results_of(tmp_path / "run")["suites"]
    content = (tmp_path / "run" / suite["itemsFile"]["name"]).read_bytes()
    assert suite["itemsFile"]["digest"] == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_numbers_of_numpy_become_plain_ones(tmp_path: Path) -> None:
    import numpy

    scores: Any = list(numpy.array([0, 100], dtype=numpy.float32))
    write(tmp_path / "run", measured({Side.BASE: scores, Side.ADAPTER: scores}))
    assert items_of(tmp_path / "run")[1]["adapter"]["score"] == 100.0


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    broken = measured({Side.BASE: [0, 0], Side.ADAPTER: [0]})
    with pytest.raises(ValueError, match="shorter"):
        write(tmp_path / "run", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainerError, match="cannot write to pvc://reports"):
        write(tmp_path / "file" / "run", everything())


@pytest.mark.parametrize("values", [[], [-0.4, 0.3], [-62.0, 3.0], [0.1, 99.0]])
def test_a_plot_shows_zero_and_all_its_values_with_few_ticks(values: list[float]) -> None:
    axis = Axis.over(values, width=200)
    assert all(MARGIN <= axis.place(value) <= 200 - MARGIN for value in [0, *values, *axis.ticks])
    assert 0 in axis.ticks
    assert 3 <= len(axis.ticks) <= 7
