"""What approve approves, and when it does not."""

from __future__ import annotations

import pytest
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.commandline.approve import approval, sentence
from tunesmith.commandline.outcome import ExitCode, Refusal

from tests.unit.operator import given

REQUIRED = {"uri": "pvc://data/tickets.jsonl", "review": {"required": True}}

APPROVED = {"page": "pvc://a/b", "approvedDigest": given.DIGEST, "approvedBy": "bob"}


def job(state: str, status: given.Raw | None = None, source: given.Raw = REQUIRED) -> FineTuneJob:
    return given.finetunejob(status={"state": state, **(status or {})}, dataset=source)


def test_exactly_the_data_of_the_status_is_approved_in_one_s_own_name() -> None:
    waiting = job("AwaitingReview", given.prepared())
    assert approval(waiting, "ada") == {
        "tunesmith.dev/approved-data": given.receipt().digest,
        "tunesmith.dev/approved-by": "ada",
    }
    assert given.receipt().digest in sentence(waiting, "ada")


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (job("Preparing"), "is Preparing, and its data is not prepared"),
        (job("Training", source={"uri": "pvc://data/x.jsonl"}), "asks for no review"),
        (
            job("Training", {"review": APPROVED}),
            "bob approved",
        ),
    ],
)
def test_where_nothing_waits_nothing_is_approved(refused: FineTuneJob, said: str) -> None:
    with pytest.raises(Refusal, match=said) as error:
        approval(refused, "ada")
    assert error.value.exit_code == ExitCode.NO
