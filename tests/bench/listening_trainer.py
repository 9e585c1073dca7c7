"""The trainer, with an ear on the log-likelihoods that its answers come from.

python -m tests.bench.listening_trainer FILE --plan plan.json --termination end.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tunesmith_trainer.evaluate.measured import Side
from tunesmith_trainer.machine import prepare_environment
from tunesmith_trainer.main import main


def listen(heard: Path) -> None:
    """Append every log-likelihood to a file: one JSON line [side, prompt, choice, value] each."""
    from tunesmith_trainer.evaluate.sides import WatchedModel

    ask = WatchedModel.loglikelihood

    def listened(
        model: WatchedModel, requests: list[Any], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        answers = ask(model, requests, disable_tqdm)
        side = Side.BASE if adapter_is_off(model) else Side.ADAPTER
        with heard.open("a", encoding="utf-8") as file:
            for request, (likelihood, _) in zip(requests, answers, strict=True):
                file.write(json.dumps([side, *request.args, likelihood]) + "\n")
        return answers

    WatchedModel.loglikelihood = listened  # type: ignore[assignment,method-assign]


def adapter_is_off(model: Any) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [each for each in model.model.modules() if isinstance(each, BaseTunerLayer)]
    return all(layer.disable_adapters for layer in layers)


if __name__ == "__main__":
    # As the trainer does it first of all: the libraries read it when they are imported.
    prepare_environment()
    listen(Path(sys.argv[1]))
    raise SystemExit(main(sys.argv[2:]))
