"""What to change about an adapter that did not pass: one thing at a time, from evidence. Pure.

The levers are those of the design document (a drop in general knowledge: lower learning rate, fewer
epochs; a drop in MT-Bench: smaller or better data) and of common practice (an earlier checkpoint;
general examples mixed into the data). One at a time, so that the next verdict says what it did.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from tunesmith.api.dataset import DatasetReceipt
from tunesmith.api.evalrun import GateResult, SuiteResult
from tunesmith.api.evaluation_suite import OnInconclusive, Suite
from tunesmith.api.job_evaluation import HELD_OUT_SUITE, Action, Recommendation, Tunable
from tunesmith.api.training import Training
from tunesmith.api.verdict import MOST_FAILED_PERCENT, Verdict, judge
from tunesmith.finetunejob.guidance import FEWEST_EXAMPLES
from tunesmith.finetunejob.loss_curve import LossCurve

#: A learning rate that is no cause of forgetting: below it fewer epochs are the better lever.
GENTLE_LEARNING_RATE = 5e-5
#: Below it LoRA often learns too little (2e-4 is usual).
TIMID_LEARNING_RATE = 1e-4
MOST_EPOCHS = 100
#: Share of the rows from which duplicates are more than an accident.
MANY_DUPLICATES = 0.2
LARGEST_FRACTION = 0.5


class Concern(IntEnum):
    """What a gate watches over. Damage is mended before gain is sought."""

    FORGETTING = 1
    CONVERSATION = 2
    TASK = 3


@dataclass(frozen=True)
class Evidence:
    """What a recommendation is drawn from."""

    #: With the changes of earlier retries.
    training: Training
    suites: list[Suite]
    results: list[SuiteResult]
    gates: list[GateResult]
    #: Loss on the held-out examples after each epoch.
    eval_losses: list[float] = field(default_factory=list)
    dataset: DatasetReceipt | None = None
    held_out_fraction: float = 0.1
    on_inconclusive: OnInconclusive | None = None


@dataclass(frozen=True)
class _Gate:
    """A gate with its suite and what was measured."""

    suite: Suite
    measured: SuiteResult | None
    bound: float
    verdict: Verdict

    @property
    def concern(self) -> Concern:
        """A suite that may lose some points watches over what was there before."""
        if self.suite.mt_bench:
            return Concern.CONVERSATION
        may_lose = self.bound < 0 and self.suite.name != HELD_OUT_SUITE
        return Concern.FORGETTING if self.suite.benchmark or may_lose else Concern.TASK

    @property
    def in_doubt(self) -> bool:
        """Whether the interval contains the bound, whatever the gate takes a doubt for.

        A doubt is no evidence: what would be changed for it would be changed for chance.
        """
        if self.verdict is Verdict.INCONCLUSIVE:
            return True
        interval = self.measured.confidence_interval if self.measured else None
        return interval is not None and judge(self.bound, interval) is Verdict.INCONCLUSIVE

    @property
    def failed_percent(self) -> float:
        """Ratings that are missing, if those are too many."""
        failed = (self.measured.failed_percent if self.measured else None) or 0.0
        return failed if failed > MOST_FAILED_PERCENT else 0.0

    @property
    def finding(self) -> str:
        """Such as: mmlu fell by 5.2 points, most in law (-12.0)."""
        difference = self.measured.difference if self.measured else None
        if self.measured is None or difference is None:
            return f"{self.suite.name} did not hold its bound"
        moved = "fell" if difference < 0 else "rose"
        subjects = ", ".join(
            f"{each.name} ({each.difference:+.1f})" for each in self.measured.fallen
        )
        most = f", most in {subjects}" if subjects and difference < 0 else ""
        return f"{self.suite.name} {moved} by {abs(difference):.1f} points{most}"


def recommend(evidence: Evidence) -> Recommendation | None:
    """What to change; None when every gate holds."""
    gates = sorted(_gates(evidence), key=lambda each: each.concern)
    not_passed = [each for each in gates if each.verdict is not Verdict.PASSED]
    if unrated := next((each for each in not_passed if each.failed_percent), None):
        share = f"{unrated.failed_percent:.0f}% of the ratings of {unrated.suite.name}"
        return _without_field(Action.MEND_JUDGE, f"the judge failed to give {share}")
    if failed := next((each for each in not_passed if not each.in_doubt), None):
        match failed.concern:
            case Concern.FORGETTING:
                return _against_forgetting(evidence, failed.finding)
            case Concern.CONVERSATION:
                return _for_conversation(evidence, failed.finding)
            case Concern.TASK:
                return _for_the_task(evidence, failed.finding)
    return _against_doubt(evidence, not_passed[0]) if not_passed else None


def sentence(recommendation: Recommendation) -> str:
    """For people: what to do, and why."""
    return f"{_what(recommendation)}: {recommendation.because}."


def _gates(evidence: Evidence) -> list[_Gate]:
    suites = {each.name: each for each in evidence.suites}
    measured = {each.suite: each for each in evidence.results}
    return [
        _Gate(suites[each.suite], measured.get(each.suite), each.minimum_difference, each.verdict)
        for each in evidence.gates
        if each.suite in suites
    ]


# --- rules ---------------------------------------------------------------------------------------


def _against_forgetting(evidence: Evidence, finding: str) -> Recommendation:
    """The further the weights move, the more is lost: move them less, in the cheapest order.

    A held-out loss that rises again says that the last epochs only cost. Else a lower learning
    rate shortens every step; below a gentle one, fewer epochs take fewer steps. When both are at
    their end the data has to hold what is to be kept.
    """
    training = evidence.training
    if earlier := _best_epoch(evidence, finding):
        return earlier
    if training.learning_rate > GENTLE_LEARNING_RATE:
        return _set_learning_rate(training, training.learning_rate / 2, finding)
    if training.epochs > 1:
        fewer = training.epochs - 1 if training.epochs <= 3 else training.epochs // 2
        return _set_epochs(training, fewer, finding)
    return _without_field(
        Action.MIX_IN_GENERAL_DATA, f"{finding} although it is one epoch at a gentle learning rate"
    )


def _for_conversation(evidence: Evidence, finding: str) -> Recommendation:
    """An assistant's manner is lost to monotonous or faulty examples, more of them losing more."""
    if earlier := _best_epoch(evidence, finding):
        return earlier
    rows = f" on {evidence.dataset.train_rows} examples" if evidence.dataset else ""
    return _without_field(Action.REVIEW_DATA, f"{finding} after training{rows}; fewer and better "
                          "examples keep the manner of the base model")  # fmt: skip


def _for_the_task(evidence: Evidence, finding: str) -> Recommendation:
    """Too little was learnt, or the wrong thing.

    A held-out loss that still falls at the end says too little; one that rises again, that the
    examples were learnt by heart, as does a dataset full of duplicates. A timid learning rate is
    the next suspect. What is left is in the data.
    """
    training, dataset = evidence.training, evidence.dataset
    curve = LossCurve(evidence.eval_losses)
    if curve.still_falls and training.epochs < MOST_EPOCHS:
        because = f"{finding}, and the held-out loss still fell in the last epoch"
        return _set_epochs(training, min(MOST_EPOCHS, 2 * training.epochs), because)
    if earlier := _best_epoch(evidence, finding):
        return earlier
    if dataset and dataset.rows and dataset.duplicate_rows > MANY_DUPLICATES * dataset.rows:
        share = 100 * dataset.duplicate_rows / dataset.rows
        return _without_field(Action.CLEAN_DATA, f"{finding}, and {share:.0f}% of the rows are "
                              "duplicates: there is less to learn from than it seems")  # fmt: skip
    if training.learning_rate < TIMID_LEARNING_RATE:
        because = f"{finding}, and the learning rate is low for LoRA"
        return _set_learning_rate(training, 2 * training.learning_rate, because)
    if dataset and dataset.train_rows < FEWEST_EXAMPLES:
        because = f"{finding}, and there are only {dataset.train_rows} examples to learn from"
        return _without_field(Action.ADD_DATA, because)
    return _without_field(Action.REVIEW_DATA, f"{finding}, and neither the loss nor the learning "
                          "rate explains it")  # fmt: skip


def _against_doubt(evidence: Evidence, gate: _Gate) -> Recommendation:
    """Only more questions decide: those that are there and were not asked come first."""
    measured = gate.measured
    because = f"{gate.suite.name} is in doubt"
    if measured and measured.detectable is not None:
        because = (
            f"{gate.suite.name} is in doubt: {measured.items} items show differences from "
            f"{measured.detectable:.1f} points"
        )
    if gate.suite.name != HELD_OUT_SUITE:
        has_more = gate.suite.dataset or (measured and measured.approximate)
        return _without_field(Action.ASK_MORE if has_more else Action.SETTLE_DOUBT, because)
    rows = evidence.dataset.held_out_rows if evidence.dataset else 0
    extends = evidence.on_inconclusive is OnInconclusive.EXTEND
    if measured and rows > measured.items and not extends:
        return _without_field(Action.ASK_MORE, f"{because}, and there are {rows}")
    if evidence.held_out_fraction < LARGEST_FRACTION:
        return _without_field(Action.HOLD_OUT_MORE, because)
    return _without_field(Action.ADD_DATA, because)


def _best_epoch(evidence: Evidence, finding: str) -> Recommendation | None:
    """As many epochs as were good.

    The trainer publishes the best checkpoint anyhow; a run that is planned for so many epochs
    lets the learning rate come to rest there, and does not stop halfway down its cosine.
    """
    curve = LossCurve(evidence.eval_losses)
    if not curve.rose_again or curve.best_epoch >= evidence.training.epochs:
        return None
    because = f"{finding}, and the held-out loss rose after epoch {curve.best_epoch}"
    return _set_epochs(evidence.training, curve.best_epoch, because)


# --- words ---------------------------------------------------------------------------------------


def _set_epochs(training: Training, wanted: int, because: str) -> Recommendation:
    return Recommendation(
        action=Action.FEWER_EPOCHS if wanted < training.epochs else Action.MORE_EPOCHS,
        field=Tunable.EPOCHS,
        before=training.epochs,
        after=wanted,
        because=because[:512],
    )


def _set_learning_rate(training: Training, wanted: float, because: str) -> Recommendation:
    """Two digits say enough."""
    lower = wanted < training.learning_rate
    return Recommendation(
        action=Action.LOWER_LEARNING_RATE if lower else Action.RAISE_LEARNING_RATE,
        field=Tunable.LEARNING_RATE,
        before=training.learning_rate,
        after=float(f"{wanted:.1e}"),
        because=because[:512],
    )


def _without_field(action: Action, because: str) -> Recommendation:
    return Recommendation(action=action, because=because[:512])


def _what(recommendation: Recommendation) -> str:
    if recommendation.field and recommendation.after is not None:
        return (
            f"Set {recommendation.field} to {recommendation.after:g}, not {recommendation.before:g}"
        )
    match recommendation.action:
        case Action.MIX_IN_GENERAL_DATA:
            return "Mix general examples into the data"
        case Action.CLEAN_DATA:
            return "Remove the duplicates from the data"
        case Action.ADD_DATA:
            return "Add examples"
        case Action.HOLD_OUT_MORE:
            return "Raise dataset.heldOut.fraction or add examples"
        case Action.MEND_JUDGE:
            return "See to the judge, or use another"
        case Action.ASK_MORE:
            return "Have more items asked (onInconclusive: Extend, maxItems or size: Full)"
        case Action.SETTLE_DOUBT:
            return "Say with onInconclusive on its gate what the doubt counts as"
        case _:
            return "Look through the data, and leave out what is poor"
