"""What the conversations are worth: ratings of each side, and a direct comparison as a check."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tunesmith_trainer.evaluate.measured import Side
from tunesmith_trainer.evaluate.mt_bench.conversation import Exchange
from tunesmith_trainer.evaluate.mt_bench.judge import JudgeClient
from tunesmith_trainer.evaluate.mt_bench.prompts import preference_prompt, rating_prompt
from tunesmith_trainer.evaluate.mt_bench.questions import TwoTurnQuestion

#: Of the order in which the judge is asked. A judge that changes over time changes for both sides.
SEED = 20_230_609
TURNS = (0, 1)


@dataclass(frozen=True)
class Ratings:
    """Scores from 1 to 10 of each side, in the order of the questions; None does not count."""

    scores: dict[Side, list[float | None]]
    #: Ratings that the judge failed to give, in percent of those it was asked for.
    failed_percent: float


def rate(
    judge: JudgeClient,
    questions: Sequence[TwoTurnQuestion],
    exchanges: dict[Side, list[Exchange]],
    answered: Callable[[int], None],
) -> Ratings:
    """Have both turns of every side rated, and take the mean of a question's two.

    The turns of a question are no independent evidence, so they make one score. A question counts
    for both sides or for neither: what a judge cannot rate is seldom missing by chance.
    """
    wanted = [
        (side, index, turn)
        for side in exchanges
        for index in range(len(questions))
        for turn in TURNS
    ]
    random.Random(SEED).shuffle(wanted)
    prompts = [
        rating_prompt(questions[index], exchanges[side][index], turn)
        for side, index, turn in wanted
    ]
    given = {
        place: None if choice is None else float(choice)
        for place, choice in zip(wanted, judge.choices(prompts, answered), strict=True)
    }
    complete = [
        all(given[side, index, turn] is not None for side in exchanges for turn in TURNS)
        for index in range(len(questions))
    ]
    scores = {
        side: [
            fmean(rating for turn in TURNS if (rating := given[side, index, turn]) is not None)
            if complete[index]
            else None
            for index in range(len(questions))
        ]
        for side in exchanges
    }
    failed = sum(rating is None for rating in given.values())
    return Ratings(scores, 100 * failed / len(given))


def win_percent(
    judge: JudgeClient,
    questions: Sequence[TwoTurnQuestion],
    base: Sequence[Exchange],
    adapter: Sequence[Exchange],
    answered: Callable[[int], None],
) -> float | None:
    """How often the adapter's conversation is preferred, ties counted half. None: never judged.

    Judges favour a place, so each pair is shown in both orders, and counts as a tie unless the
    same side wins both (arXiv:2306.05685, section 3.4). A pair without two answers is left out.
    """
    wanted = [(index, first) for index in range(len(questions)) for first in (True, False)]
    random.Random(SEED).shuffle(wanted)
    prompts = [
        preference_prompt(questions[index], adapter[index], base[index])
        if adapter_first
        else preference_prompt(questions[index], base[index], adapter[index])
        for index, adapter_first in wanted
    ]
    winners = dict(zip(wanted, judge.choices(prompts, answered), strict=True))
    points = []
    for index in range(len(questions)):
        match winners[index, True], winners[index, False]:
            case (None, _) | (_, None):
                continue
            case "A", "B":
                points.append(1.0)
            case "B", "A":
                points.append(0.0)
            case _:
                points.append(0.5)
    return 100 * fmean(points) if points else None
