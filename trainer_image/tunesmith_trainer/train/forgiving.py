"""Callbacks of tools that others run: what they suffer never ends a training."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

log = logging.getLogger(__name__)


class Forgiving(TrainerCallback):  # type: ignore[misc]
    """Passes events on until one fails. Then it says so, and passes no more."""

    def __init__(self, callback: TrainerCallback) -> None:
        self._callback: TrainerCallback | None = callback

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        self._pass_on("on_train_begin", arguments, named)

    def on_log(self, *arguments: Any, **named: Any) -> None:
        self._pass_on("on_log", arguments, named)

    def on_train_end(self, *arguments: Any, **named: Any) -> None:
        self._pass_on("on_train_end", arguments, named)

    def _pass_on(self, event: str, arguments: Sequence[Any], named: dict[str, Any]) -> None:
        if self._callback is None:
            return
        try:
            getattr(self._callback, event)(*arguments, **named)
        except Exception as error:
            name = type(self._callback).__name__.removesuffix("Callback")
            log.warning("%s gets no more curves, training goes on: %s", name, error)
            self._callback = None


def reporting_callbacks(integrations: Sequence[str]) -> list[Forgiving]:
    """Those of transformers' integrations, by their names there."""
    return [Forgiving(each()) for each in get_reporting_integration_callbacks(list(integrations))]
