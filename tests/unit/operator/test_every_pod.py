"""What holds of every pod that we make: no privileges, no token, and what the platform team set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tunesmith.evalrun.objects import JudgedAdapter, evaluation_job
from tunesmith.settings import HubAccess, Settings, settings_from

from tests.unit.operator import given
from tests.unit.operator.every_pod import FIRST, HUB_MODEL, containers, every_pod, trains

KINDS = list(every_pod())
#: Those that read the base model; the others never look for one.
READ_THE_BASE_MODEL = {name for name in KINDS if name != "removal"}
CACHED = HubAccess(cache="pvc://hub/models/cache")
MIRROR = HubAccess("https://hub.example.com")
REACHES = "tunesmith.dev/reaches-"
IMAGES = {
    "TUNESMITH_TRAINER_IMAGE": "trainer:1",
    "TUNESMITH_SERVING_IMAGE": "vllm:1",
    "TUNESMITH_OPERATOR_IMAGE": "operator:1",
}
of_every_kind = pytest.mark.parametrize("kind", KINDS)


def with_hub(hub: HubAccess) -> Settings:
    return replace(given.SETTINGS, hub=hub)


def main_environment(pod: given.Raw) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}


def reached(pod: given.Raw) -> set[str]:
    labels = pod["metadata"]["labels"]
    return {key.removeprefix(REACHES) for key in labels if key.startswith(REACHES)}


@of_every_kind
def test_no_container_may_do_more_than_its_work(kind: str) -> None:
    pod = every_pod()[kind]
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in containers(pod):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert not any("hostPath" in each or "projected" in each for each in spec["volumes"])


@of_every_kind
def test_the_platform_teams_pull_secrets_come_before_the_users_own_and_none_twice(
    kind: str,
) -> None:
    settings = replace(given.SETTINGS, pull_secrets=("mirror", "second"))
    own: dict[str, Any] = {
        "imagePullSecrets": [{"name": each} for each in ("own", "mirror", "own")]
    }
    pod = every_pod(settings, **own)[kind]
    names = [each["name"] for each in pod["spec"]["imagePullSecrets"]]
    assert names == ["mirror", "second", "own"]
    assert "imagePullSecrets" not in every_pod()[kind]["spec"]


@of_every_kind
def test_a_mirror_of_the_hub_is_told_to_what_reads_from_the_hub(kind: str) -> None:
    told = main_environment(every_pod(with_hub(MIRROR), HUB_MODEL)[kind])
    assert ("HF_ENDPOINT" in told) == (kind in READ_THE_BASE_MODEL)
    assert told.get("HF_ENDPOINT", MIRROR.endpoint) == MIRROR.endpoint


@of_every_kind
def test_what_reads_from_claims_is_the_same_with_a_mirror_or_a_cache(kind: str) -> None:
    for hub in (MIRROR, CACHED):
        assert every_pod(with_hub(hub))[kind] == every_pod()[kind]


@of_every_kind
def test_with_a_cache_nothing_is_looked_for_on_the_hub(kind: str) -> None:
    pod = every_pod(with_hub(CACHED), HUB_MODEL)[kind]
    if kind not in READ_THE_BASE_MODEL:
        assert pod == every_pod()[kind]
        return
    told = main_environment(pod)
    assert told["HF_HUB_OFFLINE"] == "1"
    (mount,) = (
        each for each in pod["spec"]["containers"][0]["volumeMounts"] if each["name"] == "hub-cache"
    )
    assert mount["mountPath"] == told["HF_HUB_CACHE"]
    assert (mount["subPath"], mount["readOnly"]) == ("models/cache", True)
    (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "hub-cache")
    assert volume["persistentVolumeClaim"] == {"claimName": "hub", "readOnly": True}
    assert reached(pod) == set()


def test_the_sidecar_sees_the_cache_where_it_looks_for_vllms_downloads() -> None:
    pod = every_pod(with_hub(CACHED), HUB_MODEL)["serving"]
    (sidecar,) = (each for each in containers(pod) if each["name"] == "sidecar")
    places = [each["mountPath"] for each in sidecar["volumeMounts"]]
    assert "/cache/huggingface/hub" in places
    # The kubelet cannot mount below a folder that is mounted to be read only.
    assert "/cache" not in places


def test_a_user_may_still_choose_another_mirror() -> None:
    own: dict[str, Any] = {"env": [{"name": "HF_ENDPOINT", "value": "https://own.example.com"}]}
    pod = every_pod(with_hub(MIRROR), HUB_MODEL, **own)["training"]
    assert main_environment(pod)["HF_ENDPOINT"] == "https://own.example.com"


@of_every_kind
def test_a_pod_that_reads_from_claims_reaches_nothing(kind: str) -> None:
    assert reached(every_pod()[kind]) == set()


def test_a_pod_is_labelled_with_what_it_reaches() -> None:
    job = trains(
        baseModel=HUB_MODEL,
        output={
            "uri": "s3://adapters",
            "secretRef": {"name": "s3"},
            "oci": {"reference": "registry.example.com/team/triage:1"},
        },
        reportTo=[{"kind": "MLflow", "uri": "https://mlflow.example.com"}],
    )[-1]
    assert reached(job["spec"]["template"]) == {"hub", "s3", "registry", "tracker"}
    judge = {"url": "https://judge.example.com/v1", "model": "judge"}
    suites = [
        {
            "name": "chat",
            "mtBench": {"questions": "pvc://data/q.jsonl", "judge": judge},
        },
        {"name": "rows", "dataset": {"uri": "https://data.example.com/rows.jsonl"}},
        {"name": "knows", "benchmark": {"name": "mmlu"}},
    ]
    run = given.evalrun(suites=suites, gates=[])
    judged = JudgedAdapter("pvc://adapters/x", given.DIGEST)
    (job,) = evaluation_job(run, judged, FIRST, given.SETTINGS)
    assert reached(job["spec"]["template"]) == {"judge", "https", "hub"}


def test_settings_of_the_hub_are_read_or_refused_with_what_to_write() -> None:
    chosen = settings_from(
        {
            **IMAGES,
            "TUNESMITH_PULL_SECRETS": "mirror second",
            "TUNESMITH_HUB_ENDPOINT": "https://hub.example.com",
            "TUNESMITH_HUB_CACHE": "pvc://hub/models",
        }
    )
    assert chosen.pull_secrets == ("mirror", "second")
    assert chosen.hub == HubAccess("https://hub.example.com", "pvc://hub/models")
    assert settings_from(IMAGES).hub == HubAccess()
    for name, wrong, remedy in (
        ("HUB_ENDPOINT", "hub.example.com", "such as https://hub.example.com"),
        ("HUB_CACHE", "/mnt/hub", "write pvc://CLAIM or pvc://CLAIM/FOLDER"),
    ):
        with pytest.raises(SystemExit, match=f"TUNESMITH_{name} is .*{remedy}"):
            settings_from({**IMAGES, f"TUNESMITH_{name}": wrong})
