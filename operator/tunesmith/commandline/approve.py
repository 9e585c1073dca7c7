"""``approve``: the data of a job that waits for a person, and no other data. Pure."""

from __future__ import annotations

from tunesmith.api.dataset import APPROVED_BY, APPROVED_DATA
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import JobState
from tunesmith.commandline.outcome import Refusal


def approval(job: FineTuneJob, by: str) -> dict[str, str]:
    """The annotations that approve what status shows. Raises Refusal where nothing waits."""
    name, status = job.metadata.name, job.status
    if status.state is JobState.AWAITING_REVIEW and status.dataset:
        return {APPROVED_DATA: status.dataset.digest, APPROVED_BY: by}
    if status.review and status.review.approved_digest:
        raise Refusal(
            f"nothing waits: {status.review.approved_by} approved the data of {name}, "
            f"{status.review.approved_digest}"
        )
    if not job.spec.dataset.review.required:
        raise Refusal(f"nothing waits: {name} asks for no review (dataset.review.required)")
    raise Refusal(
        f"nothing waits yet: {name} is {status.state or 'new'}, and its data is not prepared"
    )


def sentence(job: FineTuneJob, by: str) -> str:
    """What was approved, for people."""
    data = job.status.dataset
    assert data is not None, "only what is there is approved"
    return (
        f"{by} approved the data of {job.metadata.name}: {data.digest}, {data.train_rows} rows to "
        f"train on and {data.held_out_rows} held out"
    )
