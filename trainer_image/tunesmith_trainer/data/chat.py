"""Conversations as token sequences, through the model's own chat template.

Training and evaluation both come through here, so that the model is asked exactly as it was taught.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.data.formats import Conversation, Message, Role, as_dicts
from tunesmith_trainer.data.template import in_time, require_end
from tunesmith_trainer.failure import TrainerError, first_line, is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Label of a token that carries no loss.
IGNORED = -100
#: What every chat template can render.
TRIAL = (
    Message(Role.USER, "Is this a question?"),
    Message(Role.ASSISTANT, "It is."),
    Message(Role.USER, "And this?"),
)


@dataclass(frozen=True)
class Example:
    """A conversation in tokens, and how many of them come before the answer."""

    tokens: list[int]
    prompt_length: int

    @property
    def labels(self) -> list[int]:
        """The loss is on the last answer and the token that ends it, on nothing else."""
        return [IGNORED] * self.prompt_length + self.tokens[self.prompt_length :]


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer with its chat template, and the tokens at which generation stops."""

    tokenizer: PreTrainedTokenizerBase
    stop_tokens: frozenset[int]

    def prompt(self, question: Sequence[Message]) -> str:
        """The text after which the model answers."""
        return self._render(question, add_generation_prompt=True)

    def example(self, conversation: Conversation) -> Example:
        """One conversation to learn from.

        Prompt and answer are tokenised apart, as at inference, where the prompt comes first and
        alone. The template writes the beginning-of-sequence token itself, so none is added.
        """
        prompt = self.prompt(conversation.question)
        whole = self._render(conversation.messages, add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise TrainerError(
                Reason.MODEL_UNUSABLE,
                "the model's chat template renders a question differently once it is answered, so "
                "the answer cannot be told from the question: use a template in which the "
                "conversation begins with its own generation prompt",
            )
        prompt_tokens = self._tokens(prompt)
        answer_tokens = self._tokens(whole[len(prompt) :])
        return Example(prompt_tokens + self._ended(answer_tokens), len(prompt_tokens))

    def count_tokens(self, text: str) -> int:
        return len(self._tokens(text))

    def _ended(self, answer: list[int]) -> list[int]:
        """The answer up to and with the token that ends it.

        What a template writes after that (a line feed, say) is never generated. A template that
        does not end the turn gets the end token here, or the model would never learn to stop.
        """
        for index in reversed(range(len(answer))):
            if answer[index] in self.stop_tokens:
                return answer[: index + 1]
        return [*answer, int(self.tokenizer.eos_token_id)]

    def _render(self, messages: Iterable[Message], *, add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError  # type: ignore[import-not-found,unused-ignore]

        try:
            with in_time():
                return str(
                    self.tokenizer.apply_chat_template(
                        as_dicts(messages),
                        tokenize=False,
                        add_generation_prompt=add_generation_prompt,
                    )
                )
        except (TrainerError, MemoryError):
            raise
        except Exception as error:
            # What a template raises on purpose is of this very type; its mistakes have others.
            if type(error) is TemplateError:
                raise TrainerError(
                    Reason.DATASET_MALFORMED,
                    f"the model's chat template refuses a conversation ({error}): order the "
                    "messages as it asks, usually user and assistant in turn",
                ) from error
            raise TrainerError(
                Reason.MODEL_UNUSABLE,
                f"the model's chat template fails ({type(error).__name__}: {first_line(error)}): "
                "mend chat_template.jinja, or chat_template in tokenizer_config.json",
            ) from error

    def _tokens(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def load_chat_format(folder: Path, uri: str) -> ChatFormat:
    """The tokenizer of a model folder. Raises TrainerError if it cannot be used for chat."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        # Whatever its libraries make of the files of strangers.
        if is_out_of_memory(error):
            raise
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{uri} has no tokenizer that can be read ({type(error).__name__}: "
            f"{first_line(error)}): add tokenizer.json and tokenizer_config.json to the model's "
            "folder, as save_pretrained() writes them",
        ) from error
    if tokenizer.chat_template is None:
        raise TrainerError(
            Reason.CHAT_TEMPLATE_MISSING,
            f"{uri} has no chat template, so conversations cannot be written for it: use the "
            "Instruct variant of the model, or add chat_template.jinja to its folder",
        )
    if tokenizer.eos_token_id is None:
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"{uri} has no end token, so the model could never learn to stop: set eos_token in "
            "its tokenizer_config.json",
        )
    chat = ChatFormat(tokenizer, frozenset(stop_tokens(folder, tokenizer.eos_token_id)))
    require_end(lambda: chat.prompt(TRIAL), uri)
    return chat


def stop_tokens(folder: Path, end_token: int) -> set[int]:
    """The tokenizer's end token and those that the model's generation config names."""
    from transformers import GenerationConfig

    try:
        named = GenerationConfig.from_pretrained(folder).eos_token_id
    except Exception:
        # Missing, or none that transformers reads: the tokenizer's own end is there.
        named = None
    tokens = named if isinstance(named, list) else [named]
    return {end_token, *(each for each in tokens if type(each) is int)}


def require_length(examples: Sequence[Example], limit: int) -> None:
    """Nothing is ever cut short in silence: a row that does not fit stops the job."""
    lengths = [len(example.tokens) for example in examples]
    too_long = sum(length > limit for length in lengths)
    if too_long:
        raise TrainerError(
            Reason.EXAMPLES_TOO_LONG,
            f"{too_long} of {len(examples)} rows are longer than training.maxLength ({limit} "
            f"tokens); the longest has {max(lengths)}: set training.maxLength to {max(lengths)}, "
            "or shorten those rows",
        )
