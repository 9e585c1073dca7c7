"""review.html: training examples as the model will see them, for a person to look at.

One page that needs nothing but itself. Everything that comes from data passes through ``visible``
and Jinja's escaping, as in the report of an evaluation, whose style it shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.api.dataset import APPROVED_BY, APPROVED_DATA
from tunesmith.api.trainer_contract import PreparationPlan

from tunesmith_trainer.data.chat import ChatFormat, Example
from tunesmith_trainer.data.formats import Conversation
from tunesmith_trainer.data.split import salted
from tunesmith_trainer.evaluate.report import page as report_page
from tunesmith_trainer.prepare.receipt import PreparationReceipt

#: Of one stretch of text; what is longer loses its middle, and says so.
MAXIMUM_CHARACTERS = 10_000
SALT = "review"

#: Characters that are not seen but change what is read (direction, hidden text), shown as numbers.
UNSEEN = {
    code: f"[U+{code:04X}]"
    for first, last in (
        (0x200B, 0x200B),
        (0x202A, 0x202E),
        (0x2060, 0x2064),
        (0x2066, 0x2069),
        (0xFEFF, 0xFEFF),
        (0xE0000, 0xE007F),
    )
    for code in range(first, last + 1)
}


@dataclass(frozen=True)
class Stretch:
    """Neighbouring tokens that are treated alike."""

    text: str
    #: The model learns to say this.
    learned: bool
    #: A single control token, such as the end of a turn.
    special: bool

    @property
    def shown(self) -> str:
        text = self.text
        if len(text) > MAXIMUM_CHARACTERS:
            half = MAXIMUM_CHARACTERS // 2
            hidden = len(text) - 2 * half
            text = f"{text[:half]} [… {hidden:,} characters not shown …] {text[-half:]}"
        return text.translate(UNSEEN)


@dataclass(frozen=True)
class ShownExample:
    digest: str
    #: Where a user finds it in the dataset.
    place: str
    stretches: list[Stretch]
    tokens: int
    learned: int


def review_sample(train: Sequence[Conversation], count: int, seed: int) -> list[int]:
    """Numbers of the rows to show: a random sample, the same in every order of the rows."""
    keys = [salted(f"{SALT}:{each.digest()}", seed) for each in train]
    return sorted(range(len(train)), key=keys.__getitem__)[:count]


def show(conversation: Conversation, place: str, chat: ChatFormat) -> ShownExample:
    example = chat.example(conversation)
    return ShownExample(
        digest=conversation.digest(),
        place=place,
        stretches=stretches(example, chat),
        tokens=len(example.tokens),
        learned=len(example.tokens) - example.prompt_length,
    )


def stretches(example: Example, chat: ChatFormat) -> list[Stretch]:
    """The tokens as text, cut where the loss begins and around each special token.

    Decoded together, as a single token may be half a character or lose its space.
    """
    special = special_tokens(chat)
    cuts = {0, example.prompt_length, len(example.tokens)}
    for place, token in enumerate(example.tokens):
        if token in special:
            cuts |= {place, place + 1}
    edges = sorted(cuts)
    texts = [decoded(chat, example.tokens[:edge]) for edge in edges]
    return [
        Stretch(
            text=texts[number + 1][len(texts[number]) :],
            learned=start >= example.prompt_length,
            special=example.tokens[start] in special,
        )
        for number, start in enumerate(edges[:-1])
    ]


def special_tokens(chat: ChatFormat) -> set[int]:
    added = chat.tokenizer.added_tokens_decoder.items()
    marked = {token for token, written in added if written.special}
    return marked | set(chat.tokenizer.all_special_ids) | chat.stop_tokens


def decoded(chat: ChatFormat, tokens: Sequence[int]) -> str:
    return str(
        chat.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def render_review(
    plan: PreparationPlan, receipt: PreparationReceipt, examples: Sequence[ShownExample]
) -> str:
    """The page as HTML. Equal inputs give equal pages."""
    from jinja2 import (  # type: ignore[import-not-found,unused-ignore]
        Environment,
        FileSystemLoader,
        StrictUndefined,
    )

    folders = [Path(__file__).parent, Path(report_page.__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        finalize=report_page.visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    namespace, _, name = plan.owner.partition("/")
    page = environment.get_template("review.html").render(
        plan=plan,
        receipt=receipt,
        audit=receipt.audit,
        most=max((each.rows for each in receipt.audit.lengths), default=1),
        examples=examples,
        name=name,
        namespace=namespace,
        approved_data=APPROVED_DATA,
        approved_by=APPROVED_BY,
    )
    return str(page)
