"""The sides of the comparison: one model with its adapter switched on or off, or two models.

lm-evaluation-harness asks the questions. Its cache is never used: it does not tell an adapter from
its base.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.adapter_files import require_bounded
from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.evaluate.measured import Side
from tunesmith_trainer.failure import TrainerError, first_line, is_out_of_memory

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

#: Fixed: lm-eval's automatic choice tries sizes out, which takes minutes on a CPU.
BATCH_SIZE = 16
#: Most logits of one batch when likelihoods are asked for. lm-eval keeps those of every position,
#: twice: 1 GiB in bfloat16, 2 GiB in float32. With a vocabulary of 128,000 that is still 2,000
#: tokens at a time, which keeps a GPU busy.
BATCH_LOGITS = 2**28


class WatchedModel(HFLM):  # type: ignore[misc]
    """lm-eval's model that tells how many answers are there."""

    def __init__(
        self,
        model: PeftModel | PreTrainedModel,
        chat: ChatFormat,
        answered: Callable[[int], None],
    ) -> None:
        super().__init__(
            pretrained=model,
            tokenizer=chat.tokenizer,
            batch_size=BATCH_SIZE,
            # The template has written it.
            add_bos_token=False,
        )
        self._answered = answered
        self._likelihoods = Share(0, 0)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        self._require_room([each.args for each in requests])
        return list(super().generate_until(requests, disable_tqdm=True))

    def _require_room(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """lm-eval cuts a long prompt in silence, and stops where no room is left for any."""
        longest = max((settings.get("max_gen_toks", 0) for _, settings in requests), default=0)
        room = self.max_length - longest
        if room <= 0:
            raise TrainerError(
                Reason.EXAMPLES_TOO_LONG,
                f"answers of up to {longest} tokens leave no room for a question in the model's "
                f"context of {self.max_length}: lower maxNewTokens, or leave the benchmark out",
            )
        cut = sum(len(self.tok_encode(prompt)) > room for prompt, _ in requests)
        if cut:
            log.warning("%d prompts are longer than %d tokens and lose their beginning", cut, room)

    def _model_generate(self, context: Any, *arguments: Any, **settings: Any) -> Any:
        tokens = super()._model_generate(context, *arguments, **settings)
        self._answered(len(context))
        return tokens

    def loglikelihood(
        self, requests: list[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        self._questions = len({(each.task_name, each.doc_id) for each in requests})
        return list(super().loglikelihood(requests, disable_tqdm=True))

    def _loglikelihood_tokens(
        self, requests: list[Any], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """With as many rows in a batch as their length allows, and a word about those cut short."""
        # Choices of one token share a row: one pass through the model for each question.
        rows = {(*prompt, *choice[:-1]) for _, prompt, choice in requests}
        self._likelihoods = Share(self._questions, len(rows))
        self._batch_start = 0
        cut = sum(len(row) > self.max_length for row in rows)
        if cut:
            log.warning(
                "%d prompts are longer than the context of %d tokens: both sides see them without "
                "their beginning",
                cut,
                self.max_length,
            )
        # "auto" makes lm-eval ask for the size of every batch.
        self.batch_size_per_gpu: int | str = "auto"
        try:
            return list(super()._loglikelihood_tokens(requests, disable_tqdm=True))
        finally:
            self.batch_size_per_gpu = BATCH_SIZE

    def _batch_scheduler(self, position: int, requests: Sequence[Any]) -> int:
        """Rows of the batch that ``position`` is in: its first is the longest, and sets the length.

        lm-eval asks at every position whether the batch is full. Nothing is tried out.
        """
        _, prompt, choice = requests[self._batch_start]
        length = min(len(prompt) + len(choice), int(self.max_length))
        rows = max(1, min(BATCH_SIZE, BATCH_LOGITS // (length * int(self.vocab_size))))
        if position + 1 == self._batch_start + rows:
            self._batch_start = position + 1
        return rows

    def _model_call(self, rows: Any, *arguments: Any, **settings: Any) -> Any:
        logits = super()._model_call(rows, *arguments, **settings)
        self._answered(self._likelihoods.after(len(rows)))
        return logits


@dataclass
class Share:
    """Questions that are answered by so many rows, of which each answers a part."""

    questions: int
    rows: int
    done: int = 0

    def after(self, more: int) -> int:
        """How many further questions are answered now."""
        before = self.questions * self.done // max(1, self.rows)
        self.done += more
        return self.questions * self.done // max(1, self.rows) - before


@dataclass(frozen=True)
class Sides:
    """Who answers for which side.

    One model with an adapter is both: Sides(model, model). A merged model stands beside its base:
    Sides(base, merged). Without a second there is only the base side.
    """

    base: WatchedModel
    adapter: WatchedModel | None = None

    @property
    def context(self) -> int:
        """Tokens that the models can see at once. lm-eval cuts what is longer."""
        return int(self.base.max_length)

    @contextmanager
    def on(self, side: Side) -> Iterator[WatchedModel]:
        """The model of a side, which is that side for as long as the block lasts."""
        model = self.adapter if side is Side.ADAPTER else self.base
        if model is None:
            raise ValueError("only the base model is measured: there is no adapter's side")
        with as_side(model, side):
            yield model


@contextmanager
def as_side(model: WatchedModel, side: Side) -> Iterator[None]:
    """Switch the model's adapter off unless it is the adapter's side. Without one, do nothing."""
    switchable = hasattr(model.model, "disable_adapter")
    with nullcontext() if side is Side.ADAPTER or not switchable else model.model.disable_adapter():
        yield


@contextmanager
def plain_text(model: WatchedModel) -> Iterator[None]:
    """For prompts that no chat template wrote: the tokenizer adds what it adds to any text.

    Some models are lost without the token that begins a text.
    """
    before, model.add_bos_token = model.add_bos_token, None
    try:
        yield
    finally:
        model.add_bos_token = before


def attach_adapter(model: PreTrainedModel, folder: Path, uri: str) -> PeftModel:
    """Put the adapter on the model.

    The model is given, not looked up: the adapter's configuration names its base by uri.
    """
    from peft import PeftModel

    require_bounded(model, folder, uri)
    try:
        with warnings.catch_warnings():
            # An adapter of which half is missing loads with nothing but a warning.
            warnings.filterwarnings("error", "Found missing adapter keys")
            return PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()
    except Exception as error:
        # Whatever PEFT makes of the files of strangers: it checks few of them.
        if is_out_of_memory(error):
            raise
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"the adapter {uri} does not fit the base model ({first_line(error)}): evaluate it "
            "with the base model that it was trained on",
        ) from error


def quieten() -> None:
    """lm-eval logs its every step."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
