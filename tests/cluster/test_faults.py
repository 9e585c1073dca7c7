"""Good specs, faulty surroundings: the condition names fault and remedy, and mending heals.

All jobs are applied at once and mended at once, as that is quicker than one after the other.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.demo.chain import ROOT, create_namespace
from examples.demo.kubectl import Kubectl, Object, conditions
from tests.cluster.manifests import claim

REVISION = "0" * 40
#: Another one each time: the cluster of an earlier run may still be there, and have it.
MISSING_IMAGE = f"tunesmith.dev/not-there-yet:{uuid.uuid4().hex[:8]}"
TRAIN_SECONDS = 240


@dataclass(frozen=True)
class Fault:
    """A job whose surroundings are not right yet."""

    name: str
    changes: Object
    reason: str
    remedy: str
    mend: Callable[[Kubectl], object]


def row(number: int) -> Object:
    return {
        "messages": [
            {"role": "user", "content": f"What comes after {number}?"},
            {"role": "assistant", "content": str(number + 1)},
        ]
    }


GOOD_LINES = [f"{json.dumps(row(number))}\n" for number in range(40)]
GOOD_ROWS = "".join(GOOD_LINES)


def write_file(path: str, content: str) -> Callable[[Kubectl], None]:
    def mend(kubectl: Kubectl) -> None:
        copy_in(kubectl, {path: content.encode()})

    return mend


def copy_in(kubectl: Kubectl, files: dict[str, bytes], claim_name: str = "library") -> None:
    """Write files into a claim."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            packed.addfile(entry, io.BytesIO(content))
    unpack = ["exec", "-i", "loader", "--", "tar", "-x", "--no-same-owner", "-C", f"/{claim_name}"]
    kubectl.run(*unpack, stdin=archive.getvalue())


def create_secret(kubectl: Kubectl) -> None:
    kubectl.run("create", "secret", "generic", "hub", "--from-literal=HF_TOKEN=none")


def create_config_map(kubectl: Kubectl) -> None:
    kubectl.run("create", "configmap", "small", f"--from-literal=rows.jsonl={GOOD_ROWS}")


def load_image(_: Kubectl) -> None:
    program = ["python3", "-m", "devcluster", "image", MISSING_IMAGE, "--entrypoint=python3"]
    environment = (ROOT / "build" / "venvs" / "ml").resolve().name
    path = f"PATH=/opt/tunesmith/venvs/{environment}/bin:/usr/bin:/bin"
    sources = "PYTHONPATH=/opt/tunesmith/operator:/opt/tunesmith/trainer_image"
    subprocess.run([*program, "--env", path, "--env", sources], check=True)


FAULTS = [
    Fault(
        "secret-missing",
        {"baseModel": {"uri": "hf://team/tiny", "secretRef": {"name": "hub"}}},
        "SecretNotFound",
        "The Secret hub does not exist in namespace",
        create_secret,
    ),
    Fault(
        "claim-missing",
        {"output": {"uri": "pvc://later"}},
        "ClaimNotFound",
        "The PersistentVolumeClaim later does not exist in namespace",
        lambda kubectl: kubectl.apply(claim("later")),
    ),
    Fault(
        "config-map-missing",
        {"dataset": {"uri": "configmap://small/rows.jsonl"}},
        "ConfigMapNotFound",
        "The ConfigMap small of the dataset does not exist in namespace",
        create_config_map,
    ),
    Fault(
        "image-missing",
        {"podTemplate": {"image": MISSING_IMAGE}},
        "ImageNotPullable",
        f"The image {MISSING_IMAGE} cannot be pulled",
        load_image,
    ),
    Fault(
        "account-missing",
        {"podTemplate": {"serviceAccountName": "later"}},
        "NoPod",
        "`kubectl describe job account-missing-prepare-1` says which",
        lambda kubectl: kubectl.run("create", "serviceaccount", "later"),
    ),
    Fault(
        "model-missing",
        {"baseModel": {"uri": "pvc://library/models/later"}},
        "ModelNotFound",
        "pvc://library/models/later",
        lambda kubectl: copy_in(kubectl, model_files("models/later")),
    ),
    Fault(
        "dataset-empty",
        {"dataset": {"uri": "pvc://library/empty.jsonl"}},
        "DatasetEmpty",
        "empty.jsonl",
        write_file("empty.jsonl", GOOD_ROWS),
    ),
    Fault(
        "row-malformed",
        {"dataset": {"uri": "pvc://library/malformed.jsonl"}},
        "DatasetMalformed",
        "malformed.jsonl line 3",
        write_file("malformed.jsonl", GOOD_ROWS),
    ),
]
by_fault = pytest.mark.parametrize("fault", FAULTS, ids=[each.name for each in FAULTS])


def finetunejob(fault: Fault) -> Object:
    spec: dict[str, Any] = {
        "baseModel": {"uri": "pvc://library/models/tiny"},
        "dataset": {"uri": "pvc://library/rows.jsonl"},
        "output": {"uri": "pvc://adapters"},
        "training": {"epochs": 1, "maxLength": 256},
        "evaluation": {"maxNewTokens": 4, "preflight": "Skip"},
        "resources": {"gpus": 0, "memory": "2Gi"},
        **fault.changes,
    }
    # The hub's cache lies on the output's claim, which the pods of every stage mount, as in a
    # cluster without a way out.
    cache = {"name": "HF_HUB_CACHE", "value": "/mnt/claims/adapters/hub"}
    template = spec.setdefault("podTemplate", {})
    template["env"] = [cache, {"name": "HF_HUB_OFFLINE", "value": "1"}]
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": fault.name},
        "spec": spec,
    }


def model_files(folder: str) -> dict[str, bytes]:
    """Those of a tiny model, which is made when it is first asked for."""
    tiny = ROOT / "build" / "tiny-model"
    if not (tiny / "model.safetensors").exists():
        python = str(ROOT / "build" / "venvs" / "ml" / "bin" / "python")
        subprocess.run([python, str(Path(__file__).with_name("tiny_model.py")), tiny], check=True)
    return {f"{folder}/{path.name}": path.read_bytes() for path in sorted(tiny.iterdir())}


def cached_model(folder: str) -> dict[str, bytes]:
    """hf://team/tiny as the hub's library keeps it below this folder."""
    repository = f"{folder}/models--team--tiny"
    head = {f"{repository}/refs/main": REVISION.encode()}
    return model_files(f"{repository}/snapshots/{REVISION}") | head


@pytest.fixture(scope="module")
def faulty() -> Iterator[Kubectl]:
    """A namespace with every faulty job in it."""
    kubectl = create_namespace(f"faults-{uuid.uuid4().hex[:6]}")
    for name in ("library", "adapters"):
        kubectl.apply(claim(name))
    kubectl.apply(str(ROOT / "examples" / "demo" / "loader.yaml"))
    kubectl.wait("pod/loader", "Ready", 60)
    copy_in(
        kubectl,
        {
            **model_files("models/tiny"),
            "rows.jsonl": GOOD_ROWS.encode(),
            "empty.jsonl": b"",
            "malformed.jsonl": f"{GOOD_LINES[0]}{GOOD_LINES[1]}not json at all\n".encode(),
        },
    )
    copy_in(kubectl, cached_model("hub"), "adapters")
    for fault in FAULTS:
        kubectl.apply(finetunejob(fault))
    yield kubectl
    kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture(scope="module")
def mended(faulty: Kubectl) -> Kubectl:
    """The same namespace, every fault mended and no job touched."""
    for fault in FAULTS:
        fault.mend(faulty)
    return faulty


def wait_for_reason(kubectl: Kubectl, name: str, reason: str, seconds: float) -> Object:
    deadline = time.monotonic() + seconds
    while True:
        job = kubectl.get("finetunejob", name)
        stalled = conditions(job).get("Stalled", {})
        if stalled.get("status") == "True" and stalled["reason"] == reason:
            return stalled
        assert time.monotonic() < deadline, json.dumps(job.get("status"), indent=1)
        time.sleep(1)


@by_fault
def test_the_fault_is_named_with_its_remedy(faulty: Kubectl, fault: Fault) -> None:
    stalled = wait_for_reason(faulty, fault.name, fault.reason, 120)
    assert fault.remedy in stalled["message"]


def test_of_many_attempts_only_the_last_two_are_kept(faulty: Kubectl) -> None:
    deadline = time.monotonic() + 120
    while faulty.get("finetunejob", "dataset-empty")["status"]["preparation"]["attempt"] < 3:
        assert time.monotonic() < deadline
        time.sleep(1)
    kept = faulty.list("jobs", "tunesmith.dev/finetunejob=dataset-empty")
    assert len([job for job in kept if "deletionTimestamp" not in job["metadata"]]) <= 2


@by_fault
def test_the_job_goes_on_by_itself_once_the_fault_is_mended(mended: Kubectl, fault: Fault) -> None:
    mended.wait(f"finetunejob/{fault.name}", "Succeeded", TRAIN_SECONDS)
    job = mended.get("finetunejob", fault.name)
    assert job["metadata"]["generation"] == 1
    assert job["status"]["artifact"]["digest"].startswith("sha256:")


def test_a_name_that_is_taken_is_told_and_the_job_goes_on_when_it_is_free(faulty: Kubectl) -> None:
    """The EvalRun before training has a name that anybody may have used."""
    foreign = {
        "baseModel": {"uri": "pvc://models/tiny"},
        "suites": [{"name": "rows", "dataset": {"uri": "configmap://nowhere/rows.jsonl"}}],
        "resources": {"gpus": 0},
    }
    for kind, name, spec in (
        ("EvalRun", "taken-preflight", foreign),
        (
            "FineTuneJob",
            "taken",
            {
                "baseModel": {"uri": "pvc://library/models/tiny"},
                "dataset": {"uri": "pvc://library/rows.jsonl"},
                "output": {"uri": "pvc://adapters"},
                "training": {"maxLength": 256},
                "evaluation": {"maxNewTokens": 4},
                "resources": {"gpus": 0, "memory": "2Gi"},
            },
        ),
    ):
        faulty.apply(
            {
                "apiVersion": "tunesmith.dev/v1alpha1",
                "kind": kind,
                "metadata": {"name": name},
                "spec": spec,
            }
        )

    told = wait_for_reason(faulty, "taken", "NameTaken", 120)
    assert "EvalRun taken-preflight exists and belongs to something else" in told["message"]
    faulty.run("delete", "evalrun", "taken-preflight", "--wait")
    deadline = time.monotonic() + 30
    while not (own := faulty.find("evalrun", "taken-preflight")):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert own["metadata"]["ownerReferences"][0]["name"] == "taken"
    faulty.run("delete", "finetunejob", "taken")


def test_an_event_told_of_each_fault(faulty: Kubectl) -> None:
    told = {(each["involvedObject"]["name"], each["reason"]) for each in faulty.list("events")}
    assert {(fault.name, fault.reason) for fault in FAULTS} <= told
