"""Errands: Jobs that do something with one version, merge it or delete its files. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from tunesmith.adapterdeployment.selection import Candidate
from tunesmith.api import GROUP
from tunesmith.api.objects import AttemptStatus, PodTemplate
from tunesmith.kube.advance import Advance, advance
from tunesmith.kube.attempts import (
    Attempt,
    AttemptState,
    attempt_number,
    outdated_children,
)
from tunesmith.kube.observed_attempt import finished, latest_attempt
from tunesmith.kube.policies import placed
from tunesmith.settings import Settings

Object = dict[str, Any]

#: Labels of such a Job: the version, its folder, and what is done with it.
VERSION = f"{GROUP}/adapter-version"
PLACE = f"{GROUP}/adapter-place"
PURPOSE = f"{GROUP}/purpose"
BACKOFF_LIMIT = 3


class Purpose(StrEnum):
    """What a Job of an AdapterDeployment does with a version."""

    MERGE = "merge"
    REMOVAL = "removal"


def errand_template(own: PodTemplate, given: PodTemplate) -> PodTemplate:
    """For pods of such Jobs. The image and environment that the spec names are vLLM's."""
    return placed(own.model_copy(update={"image": None, "env": []}), given)


@dataclass(frozen=True)
class Errand:
    """What is known of the Job that does something with one version."""

    candidate: Candidate
    attempt: Attempt | None
    done: bool
    #: Its Jobs, and the highest number that a Job has about any folder of the version.
    jobs: list[Object] = field(default_factory=list)
    last_number: int = 0

    def next(self, settings: Settings, now: datetime) -> Advance:
        """What follows while it is not done."""
        found = advance(self.attempt, AttemptStatus(), BACKOFF_LIMIT, None, settings, now)
        if found.start is None:
            return found
        return replace(found, start=replace(found.start, number=self.last_number + 1))

    def outdated(self, next_step: Advance) -> list[tuple[str, str]]:
        """Jobs that nobody needs, by kind and name."""
        return outdated_children(self.jobs, next_step.start)


def errand(
    candidate: Candidate,
    purpose: Purpose,
    jobs: list[Object],
    job_pods: list[Object],
    *,
    done: bool = False,
) -> Errand:
    """What is known of an errand; ``done`` says that its result was seen elsewhere."""
    wanted = {VERSION: candidate.version, PURPOSE: str(purpose)}
    of_version = [job for job in jobs if wanted.items() <= job["metadata"]["labels"].items()]
    # The first version wrote no place: such a Job is about whichever is looked at.
    place = candidate.place
    own = [job for job in of_version if job["metadata"]["labels"].get(PLACE, place) == place]
    attempt = latest_attempt(own, job_pods)
    succeeded = attempt is not None and attempt.state is AttemptState.SUCCEEDED
    # The Job outlives its pod: that it is complete is enough, folders come and go as a whole.
    complete = any(finished(job, "Complete") for job in own)
    last = max(map(attempt_number, of_version), default=0)
    return Errand(candidate, attempt, succeeded or complete or done, own, last)


def labelled(objects: list[Object], candidate: Candidate, purpose: Purpose) -> list[Object]:
    for each in objects:
        each["metadata"]["labels"] |= {
            VERSION: candidate.version,
            PLACE: candidate.place,
            PURPOSE: str(purpose),
        }
    return objects


def advances(
    errands: list[Errand], settings: Settings, now: datetime
) -> list[tuple[Errand, Advance]]:
    return [(each, each.next(settings, now)) for each in errands]
