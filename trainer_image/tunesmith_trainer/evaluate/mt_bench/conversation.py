"""Holding the conversations: every first turn, then every second one after the side's own answer.

The answers are the most likely ones for all categories. The original draws some at random; a
comparison of two models is sharper without that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.data.formats import Message, Role
from tunesmith_trainer.evaluate.measured import Side
from tunesmith_trainer.evaluate.mt_bench.questions import TwoTurnQuestion
from tunesmith_trainer.failure import TrainerError

#: Most likely answers of one side to rendered prompts, at most so many tokens each, in order.
Ask = Callable[[Side, Sequence[str], int], list[str]]


@dataclass(frozen=True)
class Exchange:
    """One side's answers to both turns of a question."""

    first: str
    second: str

    def __str__(self) -> str:
        return f"[1] {self.first}\n\n[2] {self.second}"


@dataclass(frozen=True)
class Interview:
    """How the questions are put, to either side alike."""

    suite: str
    questions: Sequence[TwoTurnQuestion]
    chat: ChatFormat
    max_new_tokens: int
    #: Tokens that the model can see at once.
    context: int

    def hold(self, side: Side, ask: Ask) -> list[Exchange]:
        """One side's answers, in the order of the questions.

        Raises TrainerError if a conversation may not fit into the model's context.
        """
        self.require_room([self.second_prompt(each, "") for each in self.questions], answers=2)
        first = ask(side, self.first_prompts, self.max_new_tokens)
        prompts = [self.second_prompt(*each) for each in zip(self.questions, first, strict=True)]
        # Again: an answer that is read back can have more tokens than it was written with.
        self.require_room(prompts, answers=1)
        second = ask(side, prompts, self.max_new_tokens)
        return [Exchange(*answers) for answers in zip(first, second, strict=True)]

    @property
    def first_prompts(self) -> list[str]:
        return [
            self.chat.prompt([Message(Role.USER, question.turns[0])]) for question in self.questions
        ]

    def second_prompt(self, question: TwoTurnQuestion, answer: str) -> str:
        return self.chat.prompt(
            [
                Message(Role.USER, question.turns[0]),
                Message(Role.ASSISTANT, answer),
                Message(Role.USER, question.turns[1]),
            ]
        )

    def require_room(self, prompts: Sequence[str], answers: int) -> None:
        """A prompt that does not fit would be cut from the left in silence."""
        longest = max(self.chat.count_tokens(prompt) for prompt in prompts)
        needed = longest + answers * self.max_new_tokens
        if self.context is not None and needed > self.context:
            raise TrainerError(
                Reason.EXAMPLES_TOO_LONG,
                f"suite {self.suite}: a conversation of two turns may need {needed} tokens with "
                f"maxNewTokens {self.max_new_tokens}, and the model's context is {self.context}: "
                "lower maxNewTokens or shorten the questions",
            )
