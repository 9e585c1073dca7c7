"""The steps of the demonstration, which the end-to-end test takes too."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from examples.demo.kubectl import Kubectl, Object, conditions

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODEL_NAME = "smollm2-135m-instruct"
JOB = "package-reader"
DEPLOYMENT = "packaging"
FOLLOW_SECONDS = 3.0
#: Progress within a state is told at most this often.
QUIET_SECONDS = 15.0

Say = Callable[[str], None]


# --- prepare -------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where the unpacked model is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "tunesmith" / "models"


def make_inputs(work: Path) -> tuple[Path, Path]:
    """The base model's folder and the dataset's file, made from what is on this machine."""
    model = cache_folder() / MODEL_NAME
    dataset = work / "packages.jsonl"
    python = str(ROOT / "build" / "venvs" / "ml" / "bin" / "python")
    quiet = {**os.environ, "TQDM_DISABLE": "1"}
    subprocess.run([python, str(HERE / "make_base_model.py"), str(model)], check=True, env=quiet)
    subprocess.run([python, str(HERE / "make_dataset.py"), str(dataset)], check=True, env=quiet)
    return model, dataset


def create_namespace(name: str) -> Kubectl:
    """A namespace that admits only pods without privileges."""
    kubectl = Kubectl(name)
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        }
    )
    return kubectl


def fill_claims(kubectl: Kubectl, model: Path, dataset: Path) -> None:
    """Copy model and dataset into the claim, through a pod, as on any cluster."""
    kubectl.apply(str(HERE / "claims.yaml"))
    kubectl.apply(str(HERE / "loader.yaml"))
    kubectl.wait("pod/loader", "Ready", 60)
    with TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as packed:
            packed.add(model, f"models/{MODEL_NAME}", filter=_owned_by_nobody)
            packed.add(dataset, f"data/{dataset.name}", filter=_owned_by_nobody)
        archive.seek(0)
        unpack = ["exec", "-i", "loader", "--", "tar", "-x", "--no-same-owner", "-C", "/library"]
        kubectl.run(*unpack, stdin=archive.read(), timeout=300)


def _owned_by_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 65532
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


# --- follow --------------------------------------------------------------------------------------


def follow(kubectl: Kubectl, say: Say, seconds: float) -> None:
    """Tell what changes until the adapter is served. Raises SystemExit when it will not be."""
    deadline = time.monotonic() + seconds
    told, told_state, told_at = "", "", 0.0
    while time.monotonic() < deadline:
        job = kubectl.get("finetunejob", JOB)
        deployment = kubectl.get("adapterdeployment", DEPLOYMENT)
        line = " | ".join(part for part in (_job_line(job), _serving_line(deployment)) if part)
        state = f"{_state(job)} {_state(deployment)}"
        if state != told_state or (line != told and time.monotonic() - told_at > QUIET_SECONDS):
            say(line)
            told, told_state, told_at = line, state, time.monotonic()
        if job.get("status", {}).get("state") in ("Rejected", "Failed"):
            raise SystemExit(conditions(job)["Stalled"]["message"])
        if _serves(deployment, JOB):
            return
        time.sleep(FOLLOW_SECONDS)
    raise SystemExit(f"not served after {seconds:.0f} s; last seen: {told}")


def _state(raw: Object) -> str:
    return str(raw.get("status", {}).get("state", "new"))


def _job_line(job: Object) -> str:
    status = job.get("status", {})
    progress = status.get("progress", {})
    words = [f"job {status.get('state', 'new')}"]
    if status.get("state") == "Training" and progress.get("totalSteps"):
        words.append(f"step {progress.get('step', 0)}/{progress['totalSteps']}")
        if "loss" in progress:
            words.append(f"loss {progress['loss']:.3f}")
        if "eta" in progress:
            words.append(f"about {progress['eta']} left")
    if status.get("state") == "Waiting":
        words.append(conditions(job)["Stalled"]["message"])
    if verdict := status.get("evaluation", {}).get("verdict"):
        words.append(f"verdict {verdict}")
    return ", ".join(words)


def _serving_line(deployment: Object) -> str:
    status = deployment.get("status", {})
    names = ", ".join(each["name"] for each in status.get("adapters", []))
    return f"serving {status.get('state', 'new')} ({names or 'base model only'})"


def _serves(deployment: Object, name: str) -> bool:
    status = deployment.get("status", {})
    ready = conditions(deployment).get("Ready", {}).get("status") == "True"
    return ready and any(each["name"] == name for each in status.get("adapters", []))


# --- ask -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """A held-out conversation: what is asked, and what should come back."""

    messages: list[Object]
    expected: str


def held_out(kubectl: Kubectl, count: int) -> list[Question]:
    """The first held-out examples, from the folder of the adapter."""
    artifact = kubectl.get("finetunejob", JOB)["status"]["artifact"]
    path = artifact["uri"].removeprefix("pvc://adapters/")
    text = kubectl.run("exec", "loader", "--", "cat", f"/adapters/{path}/heldout.jsonl")
    rows = [json.loads(line)["messages"] for line in text.splitlines()[:count]]
    return [Question(row[:-1], row[-1]["content"]) for row in rows]


def ask(address: str, model: str, question: Question) -> str:
    """One answer of the served endpoint, under a model's name."""
    body = {"model": model, "messages": question.messages, "temperature": 0, "max_tokens": 96}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


def models(address: str) -> list[str]:
    """The names that the endpoint offers."""
    with urllib.request.urlopen(f"{address}/v1/models", timeout=60) as response:
        return [str(each["id"]) for each in json.load(response)["data"]]
