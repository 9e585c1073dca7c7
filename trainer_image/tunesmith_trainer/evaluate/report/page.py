"""report.html: one page that needs nothing but itself, offline and on paper.

The template decides how it looks. Everything that comes from data passes through ``visible`` and
Jinja's escaping, whatever the template does with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tunesmith.api.evaluation_suite import Metric
from tunesmith.api.trainer_contract import EvaluationOutcome, EvaluationPlan
from tunesmith.api.verdict import ConfidenceInterval, Verdict, judge

from tunesmith_trainer.evaluate.measured import Side
from tunesmith_trainer.evaluate.report.plots import Axis
from tunesmith_trainer.evaluate.report.suite_report import (
    Item,
    Subject,
    SuiteReport,
    most_different_first,
)

#: More make a page that browsers open slowly; the files of the items have all.
MAXIMUM_ROWS = 200
#: Half of them are the subjects that fell most, half those that rose most.
MAXIMUM_SUBJECTS = 100
SUITE_PLOT_PIXELS = 240
SUBJECT_PLOT_PIXELS = 380

SIDE_NAMES = {Side.BASE: "Base", Side.PROMPTED_BASE: "Prompted base", Side.ADAPTER: "Adapter"}

CONTROL_PICTURES = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"}
#: Characters that HTML cannot hold, or that UTF-8 cannot write, and what is shown for them.
VISIBLE = {
    **CONTROL_PICTURES,
    0x7F: "\u2421",
    **dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), "\ufffd"),
}


def render(
    plan: EvaluationPlan,
    outcome: EvaluationOutcome,
    suites: Sequence[SuiteReport],
    date: str | None = None,
) -> str:
    """The page as HTML. Equal inputs give equal pages."""
    from jinja2 import (  # type: ignore[import-not-found,unused-ignore]
        Environment,
        FileSystemLoader,
        StrictUndefined,
    )

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        signed=signed, tick=tick, score=score, shortened=shortened, short_digest=short_digest
    )
    page = environment.get_template("page.html").render(
        plan=plan,
        outcome=outcome,
        suites=suites,
        date=date,
        judged=plan.adapter or plan.merged_model,
        judged_name="Merged model" if plan.merged_model else "Adapter",
        side_names=SIDE_NAMES | ({Side.ADAPTER: "Merged model"} if plan.merged_model else {}),
        suite_axis=suite_axis,
        subject_axis=subject_axis,
        drawn_subjects=drawn_subjects,
        rows=lambda suite: most_different_first(suite.items)[:MAXIMUM_ROWS],
        tally=tally,
        against=against,
        Metric=Metric,
        Side=Side,
    )
    return str(page)


def visible(value: object) -> object:
    """Show characters that a page cannot hold. What is HTML already stays as it is."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return value.translate(VISIBLE)
    return value


def signed(value: float) -> str:
    """A difference: two decimals, as in status, and always a sign."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "\N{MINUS SIGN}")


def tick(value: float) -> str:
    """A number on a scale: as short as it goes."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def score(value: float | None) -> str:
    """A score, or a dash for what was not measured."""
    return "\N{EN DASH}" if value is None else f"{value:.2f}"


def shortened(text: str, characters: int, *, keep_end: bool = False) -> str:
    """At most so many characters. The end of a prompt is the question itself."""
    if len(text) <= characters:
        return text
    return f"… {text[-characters:]}" if keep_end else f"{text[:characters]} …"


def short_digest(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def suite_axis(suite: SuiteReport) -> Axis:
    interval = suite.result.confidence_interval
    ends = (interval.lower, interval.upper) if interval else ()
    return Axis.over((*ends, suite.result.difference or 0, *suite.bounds), SUITE_PLOT_PIXELS)


def subject_axis(subjects: Iterable[Subject]) -> Axis:
    """One scale for all subjects."""
    values: list[float] = []
    for subject in subjects:
        values.append(subject.difference)
        if interval := subject.confidence_interval:
            values += (interval.lower, interval.upper)
    return Axis.over(values, SUBJECT_PLOT_PIXELS)


def drawn_subjects(suite: SuiteReport) -> list[Subject]:
    """All, or those at both ends."""
    if len(suite.subjects) <= MAXIMUM_SUBJECTS:
        return suite.subjects
    half = MAXIMUM_SUBJECTS // 2
    return suite.subjects[:half] + suite.subjects[-half:]


def tally(items: Iterable[Item]) -> str:
    """How many items went which way."""
    counts = {"better": 0, "worse": 0, "equal": 0, "not rated": 0}
    for item in items:
        match item.difference:
            case None:
                counts["not rated"] += 1
            case 0:
                counts["equal"] += 1
            case difference:
                counts["better" if difference > 0 else "worse"] += 1
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def against(bound: float, interval: ConfidenceInterval) -> str:
    """What the interval says about a gate's bound, in words."""
    match judge(bound, interval):
        case Verdict.PASSED:
            return f"the whole interval lies above the bound of {signed(bound)}"
        case Verdict.FAILED:
            return f"no part of the interval lies above the bound of {signed(bound)}"
        case Verdict.INCONCLUSIVE:
            return f"the bound of {signed(bound)} lies within the interval"
