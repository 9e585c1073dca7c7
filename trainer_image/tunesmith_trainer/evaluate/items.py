"""The questions of a suite, rendered once for both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.api.evalrun import Metric
from tunesmith.api.trainer_contract import PlannedSuite, Reason

from tunesmith_trainer import sources
from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.data.dataset import read_dataset
from tunesmith_trainer.data.formats import Conversation, rows_digest
from tunesmith_trainer.evaluate import metrics
from tunesmith_trainer.failure import TrainerError

MINIMUM_ITEMS = 2


@dataclass(frozen=True)
class SuiteItems:
    """What is asked, what is expected, and how answers are scored."""

    name: str
    metric: Metric
    conversations: list[Conversation]
    max_new_tokens: int

    @property
    def expected(self) -> list[str]:
        return [conversation.answer for conversation in self.conversations]

    @property
    def digest(self) -> str:
        return rows_digest(self.conversations)

    def prompts(self, chat: ChatFormat) -> list[str]:
        return [chat.prompt(conversation.question) for conversation in self.conversations]


def read_suite(planned: PlannedSuite) -> SuiteItems:
    """The first max_items rows of the suite's dataset, checked against its digest."""
    suite, dataset = planned.suite, planned.dataset
    rows = read_dataset(sources.dataset_file(dataset), dataset)[: suite.max_items]
    if len(rows) < MINIMUM_ITEMS:
        raise TrainerError(
            Reason.DATASET_TOO_SMALL,
            f"suite {suite.name}: {dataset.uri} has {len(rows)} rows, and at least "
            f"{MINIMUM_ITEMS} are needed: add rows",
        )
    metric = metrics.resolve(suite.metric, [conversation.answer for conversation in rows])
    return SuiteItems(suite.name, metric, rows, suite.max_new_tokens)


def require_room(
    prompts: Sequence[str], chat: ChatFormat, suite: SuiteItems, context: int | None
) -> None:
    """A prompt that does not fit would be cut from the left in silence."""
    longest = max(chat.count_tokens(prompt) for prompt in prompts)
    if context is not None and longest + suite.max_new_tokens > context:
        raise TrainerError(
            Reason.EXAMPLES_TOO_LONG,
            f"suite {suite.name}: the longest question has {longest} tokens, and with "
            f"maxNewTokens {suite.max_new_tokens} it exceeds the model's context of {context}: "
            "lower maxNewTokens or shorten the questions",
        )
