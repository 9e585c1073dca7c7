"""What a FineTuneJob reads and writes, with what opens it. Pure."""

from __future__ import annotations

from dataclasses import replace

from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.locations import parse_location
from tunesmith.kube.sources import Role, Source


def base_model(job: FineTuneJob, revision: str | None = None) -> Source:
    """With ``revision``, that commit of the hub, whatever the branch has become since."""
    model = job.spec.base_model
    uri = str(replace(parse_location(model.uri), revision=revision)) if revision else model.uri
    return Source(uri, Role.BASE_MODEL, model.secret_ref, model.digest)


def dataset(job: FineTuneJob) -> Source:
    given = job.spec.dataset
    return Source(given.uri, Role.DATASET, given.secret_ref, given.digest)


def output(job: FineTuneJob) -> Source:
    """The whole of the output; ``within(...)`` is a folder in it."""
    given = job.output
    assert given is not None, "nothing begins before it is known where the adapter goes"
    return Source(given.uri, Role.OUTPUT, given.secret_ref, writable=True)


def output_folder(job: FineTuneJob) -> Source:
    """The folder of this very job: its uid keeps a job that is applied anew under the same name
    from finding what the deleted one left."""
    return output(job).within(f"{job.metadata.namespace}/{job.metadata.name}/{job.metadata.uid}")


def prepared(job: FineTuneJob, uri: str) -> Source:
    """The folder that the preparation made, below the output."""
    return replace(output(job), uri=uri)
