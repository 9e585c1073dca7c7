"""MT-Bench from the questions to the measured suite."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.api.evalrun import Asked
from tunesmith.api.evaluation_suite import Metric, MtBench

from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.evaluate.measured import Answer, Measured, Question, Side
from tunesmith_trainer.evaluate.mt_bench.conversation import Ask, Interview
from tunesmith_trainer.evaluate.mt_bench.judge import JudgeClient
from tunesmith_trainer.evaluate.mt_bench.questions import (
    TwoTurnQuestion,
    questions_digest,
    read_questions,
)
from tunesmith_trainer.evaluate.mt_bench.rating import rate, win_percent


@dataclass(frozen=True)
class MtBenchSuite:
    """The questions, and the judge of the answers."""

    name: str
    questions: Sequence[TwoTurnQuestion]
    judge: JudgeClient
    pairwise: bool
    max_new_tokens: int

    @property
    def answers_wanted(self) -> int:
        """How many answers one side gives."""
        return 2 * len(self.questions)

    def judgements_wanted(self, sides: Sequence[Side]) -> int:
        """How often the judge is asked."""
        pairs = 2 * len(self.questions) if self.pairwise and Side.ADAPTER in sides else 0
        return len(sides) * self.answers_wanted + pairs

    def measure(
        self,
        sides: Sequence[Side],
        ask: Ask,
        chat: ChatFormat,
        context: int,
        judged: Callable[[int], None] = lambda _: None,
    ) -> Measured:
        """Hold all conversations, then have the judge rate those of all sides in one go.

        ``sides`` is the base model, alone or with the adapter; ``context`` is in tokens;
        ``judged`` is told of each answer of the judge. Raises TrainerError if a conversation may
        not fit into the context, or if the judge cannot be reached.
        """
        interview = Interview(self.name, self.questions, chat, self.max_new_tokens, context)
        exchanges = {side: interview.hold(side, ask) for side in sides}
        ratings = rate(self.judge, self.questions, exchanges, judged)
        wins = None
        if self.pairwise and Side.ADAPTER in exchanges:
            base, adapter = exchanges[Side.BASE], exchanges[Side.ADAPTER]
            wins = win_percent(self.judge, self.questions, base, adapter, judged)
        questions = [
            self._question(*each)
            for each in zip(self.questions, interview.first_prompts, strict=True)
        ]
        return Measured(
            name=self.name,
            metric=Metric.RATING,
            questions=questions,
            answers={
                side: [
                    Answer(str(exchange), score)
                    for exchange, score in zip(exchanges[side], ratings.scores[side], strict=True)
                ]
                for side in sides
            },
            asked=Asked(
                data=questions_digest(self.questions),
                prompts=talks_digest(questions),
                judge=self.judge.name,
            ),
            failed_percent=ratings.failed_percent,
            win_percent=wins,
        )

    def _question(self, question: TwoTurnQuestion, prompt: str) -> Question:
        """The second prompt holds the side's own answer, so the question is all but that."""
        settings = {
            "category": question.category,
            "secondTurn": question.turns[1],
            "maxNewTokens": self.max_new_tokens,
        }
        expected = "\n\n".join(question.solution or ())
        return Question(prompt, expected, settings=json.dumps(settings, sort_keys=True))


def read_mt_bench(
    name: str, settings: MtBench, path: Path, max_new_tokens: int, judge: JudgeClient | None = None
) -> MtBenchSuite:
    """The suite, with its file checked; ``judge`` unset: the one that the settings name.

    Raises TrainerError for a row that is not right, and for a judge's url or key that cannot be
    used.
    """
    return MtBenchSuite(
        name,
        read_questions(path, settings.questions),
        judge or JudgeClient(settings.judge),
        settings.pairwise,
        max_new_tokens,
    )


def talks_digest(questions: Sequence[Question]) -> str:
    """sha256 of what the model is asked in the first turn, and of what is said in the second."""
    asked = json.dumps([[question.prompt, question.settings] for question in questions])
    return f"sha256:{hashlib.sha256(asked.encode()).hexdigest()}"
