"""``report``: a page that lies with an artifact. What is read, and by which pod, is pure.

A claim is read by whoever mounts it. So a pod of the trainer's image mounts it, read-only and
without privileges, prints the page and is removed. A bucket is read by the same pod, which gets the
keys from their Secret: nobody else needs to see them.
"""

from __future__ import annotations

import base64
import gzip
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.objects import Kind, PodTemplate, SecretReference
from tunesmith.api.trainer_contract import REPORT_FILE
from tunesmith.commandline.connection import Connection, Object
from tunesmith.commandline.outcome import Refusal, Unreachable
from tunesmith.commandline.target import target
from tunesmith.kube.labels import OWNER_LABELS
from tunesmith.kube.pod_spec import pod
from tunesmith.kube.pods import phase, trouble
from tunesmith.kube.sources import Role, Source
from tunesmith.kube.volumes import volumes

LABELS = {"app.kubernetes.io/managed-by": "kubectl-tunesmith"}
#: The pod ends by itself, should nobody be left to remove it.
DEADLINE_SECONDS = 300
POLL_SECONDS = 0.5
#: Printed as text in short lines: logs are no place for long ones.
PRINT = "print(base64.encodebytes(gzip.compress(content)).decode())"
FROM_CLAIM = f"""
import base64, gzip, sys
content = open(sys.argv[1], "rb").read()
{PRINT}
"""
FROM_BUCKET = f"""
import base64, gzip, sys
from tunesmith_trainer.sources.bucket import Bucket
bucket, key, credentials = sys.argv[1:]
content = Bucket(bucket, credentials or None).read(key)
if content is None:
    sys.exit(f"No such object: {{key}}")
{PRINT}
"""


class Page(StrEnum):
    """Which page of a FineTuneJob."""

    TRAINING = "training"
    REVIEW = "review"
    EVALUATION = "evaluation"


@dataclass(frozen=True)
class Reading:
    """A page, where it lies and what opens it."""

    uri: str
    secret: SecretReference | None
    template: PodTemplate

    @property
    def source(self) -> Source:
        return Source(self.uri, Role.OUTPUT, self.secret)


def of_job(job: FineTuneJob, page: Page) -> Reading:
    """The page of the training, or of the data. Raises Refusal where there is none yet."""
    status, name = job.status, job.metadata.name
    secret, template = job.output_secret, job.spec.pod_template
    if page is Page.REVIEW:
        if status.review is None:
            raise Refusal(f"{name} is {status.state or 'new'}: its data is not prepared yet")
        return Reading(status.review.page, secret, template)
    if status.artifact is None:
        raise Refusal(
            f"{name} is {status.state or 'new'}: the report of its training comes with the artifact"
        )
    uri = f"{status.artifact.uri}/{status.artifact.report or REPORT_FILE}"
    return Reading(uri, secret, template)


def of_run(run: EvalRun) -> Reading:
    """The page of an evaluation. Raises Refusal where there is none."""
    if run.status.report is None:
        why = "it has no outputUri" if run.spec.output_uri is None else "it has not finished"
        raise Refusal(f"EvalRun {run.metadata.name} has no report: {why}")
    uri = f"{run.status.report.uri}/{REPORT_FILE}"
    return Reading(uri, run.spec.output_secret_ref, run.spec.pod_template)


def run_of(job: FineTuneJob) -> str:
    """The EvalRun that judged a job. Raises Refusal before there is one."""
    if job.status.evaluation is None:
        state = job.status.state or "new"
        raise Refusal(f"{job.metadata.name} is {state}: nothing has judged it yet")
    return job.status.evaluation.name


def trainer_image(jobs: Iterable[Object], template: PodTemplate) -> str:
    """The image that wrote the page: the newest Job's. Raises Refusal without one."""
    newest = max(jobs, key=lambda job: str(job["metadata"]["creationTimestamp"]), default=None)
    if newest:
        return str(newest["spec"]["template"]["spec"]["containers"][0]["image"])
    if template.image:
        return template.image
    raise Refusal("no Job is left that says which trainer image is used here: name it with --image")


def reader_pod(reading: Reading, image: str) -> Object:
    """A pod that prints the page and does nothing else."""
    source = reading.source
    location = parse_location(source.uri)
    match location.scheme:
        case Scheme.PVC:
            command = [FROM_CLAIM, str(source.planned().path)]
        case Scheme.S3:
            credentials = source.planned().credentials or ""
            command = [FROM_BUCKET, location.holder, location.path, credentials]
        case _:
            raise Refusal(f"a page at {location.scheme}:// cannot be read")
    found, mounted = volumes([source.mount()])
    container = {
        "image": image,
        "command": ["python3", "-c", *command],
        "env": source.variables(),
        "resources": {
            "requests": {"cpu": "50m", "memory": "512Mi"},
            "limits": {"memory": "512Mi"},
        },
        "volumeMounts": mounted,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    made = pod(
        reading.template,
        LABELS,
        container,
        found,
        restartPolicy="Never",
        activeDeadlineSeconds=DEADLINE_SECONDS,
    )
    metadata = {**made["metadata"], "generateName": "tunesmith-report-"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": made["spec"]}


def unpacked(printed: bytes) -> bytes:
    """The page. Raises Unreachable where the log lost a part of it."""
    try:
        return gzip.decompress(base64.b64decode(printed))
    except (ValueError, EOFError, OSError) as error:
        raise Unreachable(f"the page came incompletely out of the pod's log: {error}") from error


def fetched(
    connection: Connection, word: str, page: Page, image: str | None, seconds: float
) -> bytes:
    """The page of the job or EvalRun that is meant."""
    raw = target(connection, word)
    if raw["kind"] == "FineTuneJob" and page is Page.EVALUATION:
        raw = connection.get("EvalRun", run_of(FineTuneJob.from_object(raw)))
    match raw["kind"]:
        case "FineTuneJob":
            reading = of_job(FineTuneJob.from_object(raw), page)
        case "EvalRun":
            reading = of_run(EvalRun.from_object(raw))
        case kind:
            raise Refusal(f"a {kind} has no report")
    chosen = image or trainer_image(owned_jobs(connection, raw), reading.template)
    return read(connection, reader_pod(reading, chosen), seconds)


def owned_jobs(connection: Connection, raw: Object) -> list[Object]:
    return connection.list("Job", {OWNER_LABELS[Kind(raw["kind"])]: raw["metadata"]["name"]})


def read(connection: Connection, reader: Object, seconds: float) -> bytes:
    """Let the pod print, and remove it whatever happens."""
    name = connection.create(reader)["metadata"]["name"]
    try:
        return unpacked(_printed(connection, name, seconds))
    finally:
        connection.delete("Pod", name)


def _printed(connection: Connection, name: str, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    while (state := phase(found := connection.get("Pod", name))) not in ("Succeeded", "Failed"):
        if time.monotonic() > deadline:
            found_trouble = trouble(found)
            why = found_trouble.message if found_trouble else f"it is {state}"
            raise Unreachable(f"the pod that reads the page does not get ready: {why}")
        time.sleep(POLL_SECONDS)
    text = b"".join(connection.logs(name))
    if state == "Failed":
        last = text.decode(errors="replace").strip().splitlines() or ["it says nothing"]
        raise Refusal(f"the page cannot be read: {last[-1]}")
    return text
