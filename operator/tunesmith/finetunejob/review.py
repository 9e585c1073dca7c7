"""A person looks at the data before a GPU is used, and approves exactly that data. Pure."""

from __future__ import annotations

from datetime import datetime

from tunesmith.api.dataset import APPROVED_BY, APPROVED_DATA, JobReview
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import Artifact, JobState
from tunesmith.api.reasons import ConditionReason
from tunesmith.api.trainer_contract import REVIEW_FILE
from tunesmith.finetunejob.decision import Decision, Observed, Prepared, Results
from tunesmith.finetunejob.judgement import evaluated
from tunesmith.finetunejob.training import not_ready, trained
from tunesmith.kube.conditions import Finding, fails, holds, timestamp, unknown


def before_training(observed: Observed, found: Results, seen: Prepared) -> Decision | None:
    """Holds every attempt that has not begun until its data is approved; None otherwise."""
    job = observed.job
    if observed.trains or not _is_lacking(job, seen):
        return None
    _, message = _lack(job, seen)
    return Decision(
        JobState.AWAITING_REVIEW,
        succeeded=unknown("Succeeded", ConditionReason.AWAITING_REVIEW, message),
        ready=not_ready(found.adjustments),
        adjustments=found.adjustments,
    )


def before_training_again(
    observed: Observed, found: Results, artifact: Artifact, seen: Prepared
) -> Decision | None:
    """The same of an attempt that follows on a verdict: what was trained stays meanwhile."""
    if not _is_lacking(observed.job, seen):
        return None
    _, message = _lack(observed.job, seen)
    return Decision(
        JobState.AWAITING_REVIEW,
        succeeded=trained(artifact),
        ready=fails("Ready", ConditionReason.AWAITING_REVIEW, message),
        evaluation=evaluated(observed, found, artifact),
        adjustments=found.adjustments,
    )


def _is_lacking(job: FineTuneJob, seen: Prepared) -> bool:
    return job.spec.dataset.review.required and not _is_approved(job, seen)


def finding(observed: Observed, seen: Prepared | None) -> Finding | None:
    """The condition Reviewed; None where nobody asked for a review and nobody approved."""
    job = observed.job
    if seen and _is_approved(job, seen):
        by = job.metadata.annotations[APPROVED_BY]
        return holds(
            "Reviewed", ConditionReason.APPROVED, f"{by} approved the data {seen.dataset.digest}."
        )
    if not job.spec.dataset.review.required:
        return None
    if seen is None:
        return unknown("Reviewed", ConditionReason.NOT_PREPARED, "There is no data to look at yet.")
    return fails("Reviewed", *_lack(job, seen))


def remembered(job: FineTuneJob, seen: Prepared | None, now: datetime) -> JobReview | None:
    """What the next status says: who approved what, and when that was first seen."""
    before = job.status.review
    if seen is None:
        return before
    if not _is_approved(job, seen):
        return JobReview(page=page(seen))
    by = job.metadata.annotations[APPROVED_BY]
    told = JobReview(
        page=page(seen),
        approved_digest=seen.dataset.digest,
        approved_by=by[:253],
        approved_at=timestamp(now),
    )
    is_known = before is not None and before == told.model_copy(
        update={"approved_at": before.approved_at}
    )
    return before if is_known else told


def page(seen: Prepared) -> str:
    """The page that shows examples as the model will see them."""
    return f"{seen.uri}/{REVIEW_FILE}"


def _is_approved(job: FineTuneJob, seen: Prepared) -> bool:
    annotations = job.metadata.annotations
    return annotations.get(APPROVED_DATA) == seen.dataset.digest and bool(
        annotations.get(APPROVED_BY)
    )


def _lack(job: FineTuneJob, seen: Prepared) -> tuple[ConditionReason, str]:
    """Why the data is not approved, and what approves it."""
    digest, annotations = seen.dataset.digest, job.metadata.annotations
    remedy = (
        f"Look at {page(seen)}, and approve it: kubectl annotate --overwrite finetunejob "
        f"{job.metadata.name} {APPROVED_DATA}={digest} {APPROVED_BY}=YOUR-USER-NAME"
    )
    approved = annotations.get(APPROVED_DATA)
    if approved and approved != digest:
        return (
            ConditionReason.OTHER_DATA_APPROVED,
            f"Approved is {approved}, but the data is {digest}. {remedy}",
        )
    if approved:
        return (
            ConditionReason.NO_NAME,
            f"The annotation {APPROVED_BY} does not say who approved. {remedy}",
        )
    return ConditionReason.NOT_APPROVED, f"The data waits for somebody's approval. {remedy}"
