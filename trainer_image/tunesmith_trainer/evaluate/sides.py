"""The two sides of the comparison: one model, its adapter switched on or off.

lm-evaluation-harness asks the questions. Its task is made here from data and a fixed shape; no
template, no function and no cache comes from outside, and its cache is never used: it does not tell
an adapter from its base.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.data.chat import ChatFormat
from tunesmith_trainer.evaluate.items import SuiteItems
from tunesmith_trainer.failure import TrainerError, first_line

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

#: Fixed: lm-eval's automatic choice tries sizes out, which takes minutes on a CPU.
BATCH_SIZE = 16


class WatchedModel(HFLM):  # type: ignore[misc]
    """lm-eval's model that tells how many answers are there."""

    def __init__(self, model: PeftModel, chat: ChatFormat, answered: Callable[[int], None]) -> None:
        super().__init__(
            pretrained=model,
            tokenizer=chat.tokenizer,
            batch_size=BATCH_SIZE,
            # The template has written it.
            add_bos_token=False,
        )
        self._answered = answered

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        return list(super().generate_until(requests, disable_tqdm=True))

    def _model_generate(self, context: Any, *arguments: Any, **settings: Any) -> Any:
        tokens = super()._model_generate(context, *arguments, **settings)
        self._answered(len(context))
        return tokens


def attach_adapter(model: PreTrainedModel, folder: Path, uri: str) -> PeftModel:
    """Put the adapter on the model.

    The model is given, not looked up: the adapter's configuration names its base by uri.
    """
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()
    except (ValueError, RuntimeError, KeyError) as error:
        raise TrainerError(
            Reason.MODEL_UNUSABLE,
            f"the adapter {uri} does not fit the base model ({first_line(error)}): evaluate it "
            "with the base model that it was trained on",
        ) from error


def answers(
    model: WatchedModel, suite: SuiteItems, prompts: Sequence[str], *, with_adapter: bool
) -> list[str]:
    """What one side answers, in the order of the prompts."""
    with nullcontext() if with_adapter else model.model.disable_adapter():
        results = simple_evaluate(
            model=model,
            tasks=[task(suite, prompts)],
            task_manager=TaskManager(include_defaults=False),
            # Answers only: scoring is ours, and both sides' answers are scored alike.
            predict_only=True,
            use_cache=None,
        )
    samples = sorted(results["samples"][suite.name], key=lambda sample: int(sample["doc_id"]))
    asked = [sample["arguments"][0][0] for sample in samples]
    if asked != list(prompts):
        raise RuntimeError(f"suite {suite.name}: the model was asked something else than planned")
    return [str(sample["filtered_resps"][0]) for sample in samples]


def task(suite: SuiteItems, prompts: Sequence[str]) -> ConfigurableTask:
    """A task that asks the prompts as they are, and takes the most likely answer."""
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_dict({"prompt": list(prompts), "expected": suite.expected})
    return ConfigurableTask(
        config={
            "task": suite.name,
            "custom_dataset": lambda: DatasetDict({"test": rows}),
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": lambda row: row["prompt"],
            "doc_to_target": lambda row: row["expected"],
            "generation_kwargs": {
                "until": [],
                "do_sample": False,
                "max_gen_toks": suite.max_new_tokens,
            },
            "num_fewshot": 0,
        }
    )


def quieten() -> None:
    """lm-eval logs its every step."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
