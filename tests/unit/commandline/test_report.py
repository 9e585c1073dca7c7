"""Which page is read, and by what kind of pod."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.objects import PodTemplate, SecretReference
from tunesmith.commandline.outcome import Refusal, Unreachable
from tunesmith.commandline.report import (
    Page,
    Reading,
    of_job,
    of_run,
    reader_pod,
    trainer_image,
    unpacked,
)

from tests.unit.operator import given

PAGE = "pvc://adapters/tuned/x/report.html"


def trained(**output: Any) -> FineTuneJob:
    status = given.prepared(
        artifact=given.artifact().to_json(), review={"page": f"{given.PREPARED_URI}/review.html"}
    )
    return given.finetunejob(status=status, output={"uri": "pvc://adapters/tuned", **output})


def test_a_job_has_the_page_of_its_training_and_that_of_its_data() -> None:
    job = trained()
    assert of_job(job, Page.TRAINING).uri == f"{given.artifact().uri}/report.html"
    assert of_job(job, Page.REVIEW).uri == f"{given.PREPARED_URI}/review.html"


def test_a_page_that_is_not_there_yet_is_refused_with_the_state() -> None:
    early = given.finetunejob(status={"state": "Preparing"})
    for page in (Page.TRAINING, Page.REVIEW):
        with pytest.raises(Refusal, match="Preparing"):
            of_job(early, page)
    with pytest.raises(Refusal, match="no outputUri"):
        of_run(given.evalrun())


def test_the_reading_pod_may_do_nothing_but_read() -> None:
    made = reader_pod(Reading(PAGE, None, PodTemplate()), "trainer:1")["spec"]
    (container,) = made["containers"]
    assert container["image"] == "trainer:1"
    assert made["automountServiceAccountToken"] is False
    assert made["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert made["activeDeadlineSeconds"] > 0
    mount = next(each for each in container["volumeMounts"] if "claims" in each["mountPath"])
    assert mount["readOnly"] is True
    assert container["command"][-1] == "/mnt/claims/adapters/tuned/x/report.html"


def test_a_bucket_is_opened_by_its_secret_which_only_the_pod_sees() -> None:
    secret = SecretReference(name="store")
    reading = Reading("s3://bucket/a/report.html", secret, PodTemplate())
    (container,) = reader_pod(reading, "trainer:1")["spec"]["containers"]
    keys = {each["name"]: each.get("valueFrom") for each in container["env"]}
    assert keys["OUTPUT_AWS_ACCESS_KEY_ID"]["secretKeyRef"]["name"] == "store"
    assert container["command"][-3:] == ["bucket", "a/report.html", "OUTPUT"]


def test_the_pod_goes_where_the_job_s_pods_may_go() -> None:
    template = PodTemplate(node_selector={"pool": "tuning"})
    assert reader_pod(Reading(PAGE, None, template), "t:1")["spec"]["nodeSelector"] == {
        "pool": "tuning"
    }


def test_what_the_pod_prints_is_the_page_byte_for_byte(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_bytes(bytes(range(256)) * 400)
    (container,) = reader_pod(Reading(PAGE, None, PodTemplate()), "t:1")["spec"]["containers"]
    program = container["command"][2]
    printed = subprocess.run(
        [sys.executable, "-c", program, str(page)], capture_output=True, check=True
    ).stdout
    assert unpacked(printed) == page.read_bytes()


def test_a_page_that_came_in_part_is_not_taken_for_the_whole() -> None:
    with pytest.raises(Unreachable, match="incompletely"):
        unpacked(b"H4sIAAAAAAAA")


def test_the_image_is_that_of_the_newest_job_else_the_one_that_is_named() -> None:
    jobs = [_batch_job(second, f"trainer:{second}") for second in (3, 1)]
    assert trainer_image(jobs, PodTemplate()) == "trainer:3"
    assert trainer_image([], PodTemplate(image="own:1")) == "own:1"
    with pytest.raises(Refusal, match="--image"):
        trainer_image([], PodTemplate())


def _batch_job(second: int, image: str) -> dict[str, Any]:
    pod = {"spec": {"containers": [{"image": image}]}}
    made = f"2026-01-01T00:00:0{second}Z"
    return {"metadata": {"creationTimestamp": made}, "spec": {"template": pod}}
