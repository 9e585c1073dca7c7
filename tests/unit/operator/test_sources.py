"""Where sources may lie, and how their Secrets reach the pod without meeting each other."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tunesmith.api import locations
from tunesmith.api.locations import Location, Scheme, parse_location
from tunesmith.api.objects import SecretReference
from tunesmith.api.output import OciTarget
from tunesmith.evalrun.objects import JudgedAdapter, evaluation_job, evaluation_plan
from tunesmith.finetunejob import sources as job_sources
from tunesmith.finetunejob.decision import Prepared
from tunesmith.finetunejob.eval_runs import eval_run, preflight_run
from tunesmith.kube.attempts import Start
from tunesmith.kube.sources import Role, Source, planned_registry, registry_variables
from tunesmith.kube.volumes import volumes

from tests.unit.operator import given

STORE = SecretReference(name="store")
DIGEST = "sha256:" + "c" * 64


@pytest.mark.parametrize(
    ("pattern", "accepted", "refused"),
    [
        (
            locations.S3_PATTERN,
            ["s3://models/llama", "s3://my.bucket-1/a/b c/d"],
            ["s3://models", "s3://UPPER/a", "s3://ab/", "s3://-models/a", "s3://models//a"],
        ),
        (
            locations.S3_FOLDER_PATTERN,
            ["s3://models", "s3://models/a/b"],
            ["s3://", "s3://models/", "s3://m", "http://models"],
        ),
        (
            locations.HTTPS_PATTERN,
            ["https://example.com/rows.jsonl", "https://example.com:8443/a/b.csv"],
            [
                "http://example.com/rows.jsonl",
                "https://example.com",
                "https://user:secret@example.com/rows.jsonl",
                "https://example.com/rows.jsonl?signature=secret",
                "https://example.com/rows.jsonl#part",
            ],
        ),
        (
            locations.ARCHIVE_PATTERN,
            ["https://example.com/a.tar", "https://example.com/b/a.tar.gz", "https://a.b/c.tgz"],
            ["https://example.com/a.zip", "https://example.com/.tar", "https://example.com/atar"],
        ),
        (
            locations.OCI_PATTERN,
            ["registry.example.com/team/triage:v1", "localhost:5000/a:latest"],
            ["triage:v1", "registry.example.com/triage", "https://registry.example.com/a:v1"],
        ),
    ],
)
def test_a_place_is_written_in_one_way(
    pattern: str, accepted: list[str], refused: list[str]
) -> None:
    assert [uri for uri in accepted if not re.search(pattern, uri)] == []
    assert [uri for uri in refused if re.search(pattern, uri)] == []


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("s3://models/a/b", Location(Scheme.S3, "models", "a/b")),
        ("s3://models", Location(Scheme.S3, "models", "")),
        ("https://example.com:8443/a/b", Location(Scheme.HTTPS, "example.com:8443", "a/b")),
    ],
)
def test_a_uri_is_taken_apart_and_put_together_again(uri: str, location: Location) -> None:
    assert parse_location(uri) == location
    assert str(location) == uri


def test_what_is_fetched_needs_no_volume() -> None:
    mounts = [
        Source(uri, Role.DATASET).mount()
        for uri in ("s3://b/a", "https://h/a", "hf://o/n", "pvc://data/a")
    ]
    found, mounted = volumes(mounts)
    assert [each["persistentVolumeClaim"]["claimName"] for each in found] == ["data"]
    assert [each["mountPath"] for each in mounted] == ["/mnt/claims/data"]


def keys(variables: list[dict[str, Any]]) -> dict[str, tuple[str, str, bool]]:
    """Name of the variable: Secret, key, whether the pod starts without."""
    references = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in variables}
    return {
        name: (each["name"], each["key"], each.get("optional", False))
        for name, each in references.items()
    }


def test_a_bucket_needs_two_keys_and_takes_three_more() -> None:
    source = Source("s3://data/rows.jsonl", Role.DATASET, STORE, DIGEST)
    assert keys(source.variables()) == {
        "DATASET_AWS_ACCESS_KEY_ID": ("store", "AWS_ACCESS_KEY_ID", False),
        "DATASET_AWS_SECRET_ACCESS_KEY": ("store", "AWS_SECRET_ACCESS_KEY", False),
        "DATASET_AWS_SESSION_TOKEN": ("store", "AWS_SESSION_TOKEN", True),
        "DATASET_AWS_ENDPOINT_URL": ("store", "AWS_ENDPOINT_URL", True),
        "DATASET_AWS_REGION": ("store", "AWS_REGION", True),
    }
    planned = source.planned()
    assert (planned.path, planned.credentials, planned.content_digest) == (None, "DATASET", DIGEST)


def test_a_source_without_a_secret_has_no_variables() -> None:
    source = Source("s3://data/rows.jsonl", Role.DATASET)
    assert source.variables() == []
    assert source.planned().credentials is None


def test_a_place_below_another_is_opened_by_the_same_secret() -> None:
    folder = Source("s3://out", Role.OUTPUT, STORE, writable=True).within("team/job")
    assert folder.planned().uri == "s3://out/team/job"
    assert folder.planned().credentials == "OUTPUT"


def test_a_registry_has_a_secret_of_its_own() -> None:
    target = OciTarget(reference="r.example.com/a:v1", secret_ref=SecretReference(name="registry"))
    assert keys(registry_variables(target)) == {
        "REGISTRY_OCI_USERNAME": ("registry", "OCI_USERNAME", False),
        "REGISTRY_OCI_PASSWORD": ("registry", "OCI_PASSWORD", False),
    }
    planned = planned_registry(target)
    assert planned is not None
    assert planned.credentials == "REGISTRY"
    public = planned_registry(OciTarget(reference="r.example.com/a:v1"))
    assert public is not None
    assert public.credentials is None
    assert registry_variables(None) == []


# --- the kinds ---------------------------------------------------------------------------------

S3_JOB: dict[str, Any] = {
    "baseModel": {"uri": "hf://org/model", "secretRef": {"name": "hub"}},
    "dataset": {"uri": "s3://data/rows.jsonl", "secretRef": {"name": "data"}},
    "output": {"uri": "s3://out/tuned", "secretRef": {"name": "store"}},
}


def test_each_source_of_a_job_has_its_own_secret() -> None:
    job = given.finetunejob(**S3_JOB)
    found = [job_sources.base_model(job), job_sources.dataset(job), job_sources.output(job)]
    assert [(each.role, each.secret and each.secret.name) for each in found] == [
        ("BASE_MODEL", "hub"),
        ("DATASET", "data"),
        ("OUTPUT", "store"),
    ]
    folder = job_sources.output_folder(job)
    assert folder.uri == "s3://out/tuned/team/triage/uid-triage"
    assert folder.secret == STORE


def test_the_eval_runs_of_a_job_are_given_what_opens_its_places() -> None:
    job = given.finetunejob(**S3_JOB)
    uri = "s3://out/tuned/team/triage/uid-triage/prepared/x"
    data = Prepared(uri, given.receipt(), given.memory_plan())
    before = preflight_run(job, data, given.SETTINGS)["spec"]
    assert before["suites"][0]["dataset"]["secretRef"] == {"name": "store"}
    assert before["outputSecretRef"] == {"name": "store"}
    uri = "s3://out/tuned/team/triage/uid-triage/abc"
    artifact = given.artifact().model_copy(update={"uri": uri})
    after = eval_run(job, artifact, None, given.SETTINGS)["spec"]
    assert after["adapter"]["secretRef"] == {"name": "store"}
    assert after["suites"][0]["dataset"]["secretRef"] == {"name": "store"}
    assert after["suites"][0]["promptedBase"]["examples"]["secretRef"] == {"name": "store"}


def test_two_suites_of_a_run_may_have_different_secrets() -> None:
    run = given.evalrun(
        baseModel={"uri": "s3://models/llama", "secretRef": {"name": "models"}},
        suites=[
            {"name": "a", "dataset": {"uri": "s3://data/a.jsonl", "secretRef": {"name": "one"}}},
            {"name": "b", "dataset": {"uri": "s3://data/b.jsonl", "secretRef": {"name": "two"}}},
        ],
        outputUri="s3://reports",
        outputSecretRef={"name": "store"},
    )
    adapter = JudgedAdapter("s3://out/a", DIGEST, STORE)
    (job,) = evaluation_job(run, adapter, Start(1, 0), given.SETTINGS)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    found = keys([each for each in container["env"] if "valueFrom" in each])
    secrets = {name: secret for name, (secret, key, _) in found.items() if key.endswith("_ID")}
    assert secrets == {
        "BASE_MODEL_AWS_ACCESS_KEY_ID": "models",
        "ADAPTER_AWS_ACCESS_KEY_ID": "store",
        "SUITE_1_AWS_ACCESS_KEY_ID": "one",
        "SUITE_2_AWS_ACCESS_KEY_ID": "two",
        "OUTPUT_AWS_ACCESS_KEY_ID": "store",
    }
    plan = evaluation_plan(run, adapter)
    assert plan.output is not None
    assert plan.output.uri == f"s3://reports/{run.metadata.name}"
    asked = [each.questions.credentials for each in plan.suites if each.questions]
    assert asked == ["SUITE_1", "SUITE_2"]


def test_a_digest_is_about_rows_and_behind_https_about_the_file() -> None:
    suites = [
        {"name": "a", "dataset": {"uri": "s3://data/a.jsonl", "digest": DIGEST}},
        {"name": "b", "dataset": {"uri": "https://example.com/b.jsonl", "digest": DIGEST}},
    ]
    rows, file = (each.questions for each in evaluation_plan(run_of(suites), None).suites)
    assert rows is not None
    assert file is not None
    assert (rows.digest, rows.content_digest) == (DIGEST, None)
    assert (file.digest, file.content_digest) == (None, DIGEST)


def run_of(suites: list[dict[str, Any]]) -> Any:
    return given.evalrun(suites=suites)


@pytest.mark.parametrize(("data", "has_token"), [(None, True), ("pvc://tasks/mmlu", False)])
def test_a_benchmark_from_the_hub_is_fetched_with_the_base_models_token(
    data: str | None, has_token: bool
) -> None:
    benchmark = {"name": "mmlu", **({"data": data} if data else {})}
    run = given.evalrun(
        baseModel={"uri": "hf://org/model", "secretRef": {"name": "hub"}},
        suites=[{"name": "a", "benchmark": benchmark}],
    )
    (job,) = evaluation_job(run, None, Start(1, 0), given.SETTINGS)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    names = {each["name"] for each in container["env"]}
    assert ("HF_TOKEN" in names) is has_token
    assert "BASE_MODEL_HF_TOKEN" in names
