"""What the examples are in the model's tokens, before a GPU is asked for.

The faults that are looked for are those that trainings fail by in silence: examples cut short
(huggingface/trl#2400), nothing to learn in a row (trl#6668), two beginning tokens (trl#1400), an
end that is never learned (trl#1623).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tunesmith.api.dataset import DatasetAudit, LengthBucket
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.data.chat import ChatFormat, Example
from tunesmith_trainer.data.formats import Conversation
from tunesmith_trainer.failure import TrainerError

#: Of the rows whose last token must be one at which generation stops.
ENDED_SHARE = 0.99
#: Upper ends of the bars of the histogram are powers of two, from this one on.
FIRST_BAR = 16


@dataclass(frozen=True)
class Limits:
    #: Tokens of one example, training.maxLength.
    length: int
    #: Share of all tokens that may be left out, dataset.maxLostTokens.
    lost_share: float


@dataclass(frozen=True)
class Audited:
    """The rows that are kept, by number, and what was found."""

    kept: list[int]
    audit: DatasetAudit
    #: What is worth telling, a sentence each.
    warnings: list[str]


def audit(
    conversations: Sequence[Conversation],
    chat: ChatFormat,
    limits: Limits,
    place: Callable[[int], str],
) -> Audited:
    """Look at every training row. Raises TrainerError if they are not fit to be trained on.

    ``place`` says where a user finds a row, by its number here. Rows longer than the limit are
    left out whole, never cut, and refused if they are more than a small share of the tokens.
    """
    tally = tally_of((chat.example(each) for each in conversations), chat)
    tally.require_answers(place)
    tally.require_length(limits)
    tally.require_one_beginning()
    tally.require_ends()
    warnings = []
    if tally.without_beginning:
        warnings.append(
            f"the chat template writes no beginning token in {tally.without_beginning} of "
            f"{len(conversations)} rows although the tokenizer has one: the model will be served "
            "as it is trained, but check that the base model expects it so"
        )
    if spelled := rows_with_special_tokens(conversations, chat):
        warnings.append(
            f"{len(spelled)} rows have special tokens of the model in their text, the first is "
            f"{place(spelled[0])}: they end or begin turns where none ends or begins"
        )
    return Audited(tally.kept(limits.length), tally.audit(limits.length), warnings)


@dataclass
class Tally:
    """What is counted over the examples: numbers for each row, not its tokens."""

    lengths: list[int] = field(default_factory=list)
    #: Tokens that are learned, the end of the turn among them.
    trainable: list[int] = field(default_factory=list)
    #: Rows of which nothing but the end would be learned.
    without_answer: list[int] = field(default_factory=list)
    without_end: int = 0
    without_beginning: int = 0
    doubled_beginning: int = 0

    def require_answers(self, place: Callable[[int], str]) -> None:
        if self.without_answer:
            raise TrainerError(
                Reason.NOTHING_TO_LEARN,
                f"{len(self.without_answer)} of {len(self.lengths)} rows have no token to learn "
                f"from once the chat template has written them, the first is "
                f"{place(self.without_answer[0])}: write an answer that the template keeps, or "
                "remove them",
            )

    def require_length(self, limits: Limits) -> None:
        lost = [length for length in self.lengths if length > limits.length]
        share = sum(lost) / max(1, sum(self.lengths))
        if lost and share > limits.lost_share:
            raise TrainerError(
                Reason.EXAMPLES_TOO_LONG,
                f"{len(lost)} of {len(self.lengths)} rows are longer than training.maxLength "
                f"({limits.length} tokens), and leaving them out would lose {share:.1%} of the "
                f"tokens where dataset.maxLostTokens allows {limits.lost_share:.1%}: set "
                f"training.maxLength to {max(lost)}, shorten those rows, or raise "
                "dataset.maxLostTokens",
            )

    def require_one_beginning(self) -> None:
        if self.doubled_beginning:
            raise TrainerError(
                Reason.MODEL_UNUSABLE,
                f"{self.doubled_beginning} of {len(self.lengths)} rows begin with two beginning "
                "tokens: let the chat template write it once",
            )

    def require_ends(self) -> None:
        ended = len(self.lengths) - self.without_end
        if ended < ENDED_SHARE * len(self.lengths):
            raise TrainerError(
                Reason.MODEL_UNUSABLE,
                f"only {ended} of {len(self.lengths)} rows end with a token at which generation "
                "stops, so the model would not learn to stop: name the token that ends a turn of "
                "the chat template as eos_token_id in generation_config.json",
            )

    def kept(self, limit: int) -> list[int]:
        return [row for row, length in enumerate(self.lengths) if length <= limit]

    def audit(self, limit: int) -> DatasetAudit:
        kept = self.kept(limit)
        tokens = sum(self.lengths[row] for row in kept)
        return DatasetAudit(
            tokens=tokens,
            trainable_tokens=sum(self.trainable[row] for row in kept),
            longest=max(self.lengths, default=0),
            too_long_rows=len(self.lengths) - len(kept),
            lost_tokens=sum(self.lengths) - tokens,
            lengths=histogram(self.lengths),
        )


def tally_of(examples: Iterable[Example], chat: ChatFormat) -> Tally:
    """Count over examples, one at a time: they are many, and need not be in memory together."""
    tally = Tally()
    beginning = chat.tokenizer.bos_token_id
    for row, example in enumerate(examples):
        answer = example.tokens[example.prompt_length :]
        ended = bool(answer) and answer[-1] in chat.stop_tokens
        tally.lengths.append(len(example.tokens))
        tally.trainable.append(len(answer))
        tally.without_end += not ended
        if len(answer) <= ended:
            tally.without_answer.append(row)
        if beginning is not None:
            # Some models begin every turn with the same token, so only the first ones tell.
            first = example.tokens[:2].count(beginning)
            tally.without_beginning += example.tokens[:1] != [beginning]
            tally.doubled_beginning += first == 2
    return tally


def histogram(lengths: Sequence[int]) -> list[LengthBucket]:
    """Rows by length in bars that double, from the shortest to the longest; 16 bars at most."""
    if not lengths:
        return []
    bars: dict[int, int] = {}
    for length in lengths:
        upper = max(FIRST_BAR, 1 << (length - 1).bit_length())
        bars[upper] = bars.get(upper, 0) + 1
    uppers = []
    upper = min(bars)
    while upper <= max(bars):
        uppers.append(upper)
        upper *= 2
    return [LengthBucket(up_to=upper, rows=bars.get(upper, 0)) for upper in uppers][-16:]


def rows_with_special_tokens(conversations: Sequence[Conversation], chat: ChatFormat) -> list[int]:
    """Rows in whose text a control token of the model is spelled out."""
    spelled = [token for token in chat.tokenizer.all_special_tokens if token.strip()]
    return [
        row
        for row, each in enumerate(conversations)
        if any(token in message.content for message in each.messages for token in spelled)
    ]
