"""Deletes the folder of an adapter: all of it, and only if it is the one that was meant."""

from __future__ import annotations

from tunesmith.api.digests import adapter_digest
from tunesmith.api.trainer_contract import Reason, RemovalOutcome, RemovalPlan

from tunesmith_trainer.failure import TrainerError
from tunesmith_trainer.output import place_of


def remove(plan: RemovalPlan) -> RemovalOutcome:
    """Gone already is fine. Raises TrainerError when the folder holds another adapter."""
    store, name = place_of(plan.adapter)
    folder = store.folder(name)
    if folder is not None:
        try:
            found = adapter_digest(folder)
        except FileNotFoundError as error:
            raise other_adapter(plan, f"no adapter ({error.filename} is missing)") from error
        if found != plan.adapter_digest:
            raise other_adapter(plan, f"the adapter {found}")
        store.remove(name)
    return RemovalOutcome(uri=plan.adapter.uri)


def other_adapter(plan: RemovalPlan, found: str) -> TrainerError:
    return TrainerError(
        Reason.ADAPTER_CHANGED,
        f"{plan.adapter.uri} was to be deleted as {plan.adapter_digest}, but holds {found}: it is "
        "left alone",
    )
