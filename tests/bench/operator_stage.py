"""Many FineTuneJobs on simulated GPUs, and the bare batch Jobs that they are measured against.

KWOK plays the kubelet: nothing is computed, and a pod ends after a set time with the last word that
a trainer would have left. It is in the pod's status only, as with a kubelet, so that objects are as
large as they would be.
"""

from __future__ import annotations

import copy
import json
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from tunesmith.api.trainer_contract import TerminationMessage
from tunesmith.finetunejob.decision import JobStage
from tunesmith.kube.labels import STAGE

from examples.demo.chain import create_namespace
from examples.demo.kubectl import Kubectl, Object
from tests.bench.results import FOLDER
from tests.cluster.manifests import claim
from tests.unit.operator import given

#: On pods of the benchmark: how long training and preparation take. Everything else takes a second.
TRAINING = "bench.tunesmith.dev/training"
PREPARATION = "bench.tunesmith.dev/preparation"
#: A node of KWOK takes 110 pods; a quarter more than what trains at the same time.
PODS_OF_A_NODE = 110
SPARE = 1.25


def simulate(pods_at_once: int) -> None:
    """Simulated nodes with room for so many pods, each with a GPU."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    stages = FOLDER / "operator-stages.json"
    stages.write_text(json.dumps(_pod_ends()))
    nodes = int(pods_at_once * SPARE / PODS_OF_A_NODE) + 1
    devcluster("kwok-up", "--nodes", str(nodes), "--gpus", str(PODS_OF_A_NODE), "--stages", stages)


def devcluster(*arguments: str | Path) -> None:
    subprocess.run(["python3", "-m", "devcluster", *arguments], check=True)


def _pod_ends() -> Object:
    """KWOK's stage for the pods of the benchmark."""
    stage = f'.metadata.labels["{STAGE}"]'
    trains, prepares = f'{stage} == "{JobStage.TRAIN}"', f'{stage} == "{JobStage.PREPARE}"'
    return {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "Stage",
        "metadata": {"name": "bench-pod-ends"},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
            "selector": {
                "matchExpressions": [
                    {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
                    {"key": ".status.phase", "operator": "In", "values": ["Running"]},
                    {"key": f'.metadata.annotations["{TRAINING}"]', "operator": "Exists"},
                ]
            },
            "delay": {
                "durationMilliseconds": 1000,
                "durationFrom": {
                    "expressionFrom": f'if {trains} then .metadata.annotations["{TRAINING}"] '
                    f'elif {prepares} then .metadata.annotations["{PREPARATION}"] else "1s" end'
                },
            },
            "next": {"statusTemplate": _last_words()},
        },
    }


def _last_words() -> str:
    """The status of a pod that has ended; each stage of the work leaves its own message."""
    prepared, trained = given.outcome().to_line(), given.trained().to_line()
    measured = TerminationMessage(evaluation=given.measured()).to_line()
    return f"""
        {{{{ $now := Now }}}}
        {{{{ $stage := or ( index .metadata.labels "{STAGE}" ) "" }}}}
        {{{{ $message := `{measured}` }}}}
        {{{{ if eq $stage "{JobStage.PREPARE}" }}}}{{{{ $message = `{prepared}` }}}}{{{{ end }}}}
        {{{{ if eq $stage "{JobStage.TRAIN}" }}}}{{{{ $message = `{trained}` }}}}{{{{ end }}}}
        {{{{ $started := .status.startTime }}}}
        phase: Succeeded
        conditions:
        {{{{ range $type := list "ContainersReady" "Ready" }}}}
        - type: {{{{ $type | Quote }}}}
          status: "False"
          reason: PodCompleted
          lastTransitionTime: {{{{ $now | Quote }}}}
        {{{{ end }}}}
        containerStatuses:
        {{{{ range .spec.containers }}}}
        - name: {{{{ .name | Quote }}}}
          image: {{{{ .image | Quote }}}}
          imageID: ""
          ready: false
          started: false
          restartCount: 0
          state:
            terminated:
              exitCode: 0
              reason: Completed
              message: {{{{ $message | Quote }}}}
              startedAt: {{{{ $started | Quote }}}}
              finishedAt: {{{{ $now | Quote }}}}
        {{{{ end }}}}
        """


# --- what is applied -----------------------------------------------------------------------------


def finetunejob(name: str, training_seconds: float, preparation_seconds: float = 1) -> Object:
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "baseModel": {"uri": "pvc://models/llama"},
            "dataset": {"uri": "pvc://data/rows.jsonl"},
            "output": {"uri": "pvc://adapters"},
            # A simulated pod has nothing to say about a base model.
            "evaluation": {"preflight": "Skip"},
            "podTemplate": {
                "nodeSelector": {"type": "kwok"},
                "tolerations": [{"key": "tunesmith.dev/simulated", "operator": "Exists"}],
                "annotations": {
                    TRAINING: f"{training_seconds:g}s",
                    PREPARATION: f"{preparation_seconds:g}s",
                    # Not by the stage of the development cluster, but by ours.
                    "simulation.tunesmith.dev/never-ends": "true",
                },
            },
        },
    }


def bare_job(specimen: Object, name: str, stage: str, training_seconds: float) -> Object:
    """A batch Job as the operator makes it, but nobody's."""
    spec = copy.deepcopy(specimen["spec"])
    template = spec["template"]["metadata"]
    template["labels"] = {STAGE: stage}
    template["annotations"][TRAINING] = f"{training_seconds:g}s"
    for made_by_the_server in ("selector", "manualSelector", "completionMode", "suspend"):
        spec.pop(made_by_the_server, None)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "annotations": specimen["metadata"]["annotations"]},
        "spec": spec,
    }


def namespace(name: str) -> Kubectl:
    """A fresh one, with the claims that the pods mount."""
    kubectl = create_namespace(name)
    for each in ("models", "data", "adapters"):
        kubectl.apply(claim(each))
        kubectl.run("wait", f"pvc/{each}", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s")
    return kubectl


def remove(kubectl: Kubectl) -> None:
    """And everything in it: it would be work for the controllers while they are measured."""
    kubectl.run("delete", "namespace", kubectl.namespace, "--wait", timeout=600)


def specimen_of_training(kubectl: Kubectl) -> Object:
    """The batch Job that the operator makes to train."""
    kubectl.apply(finetunejob("specimen", 1))
    kubectl.wait("finetunejob/specimen", "Succeeded", 60)
    return kubectl.list("jobs", f"{STAGE}={JobStage.TRAIN}")[0]


def apply_all(kubectl: Kubectl, objects: Iterable[Object]) -> None:
    """One `kubectl apply`, one object after the other, as kubectl does it.

    kubectl sends at most 50 requests a second once 300 are sent, whatever it applies. Server-side,
    since that is one request for each object.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("\n---\n".join(json.dumps(each) for each in objects))
        file.flush()
        kubectl.run("apply", "--server-side", "-f", file.name, timeout=900)


# --- how far it is -------------------------------------------------------------------------------


class Milestones:
    """When the objects of a kind were first seen with each of some conditions, in time.time().

    Seen by `kubectl get --watch`: the same for ours and the floor, and it asks for nothing twice.
    """

    def __init__(self, kubectl: Kubectl, kind: str, conditions: tuple[str, ...]) -> None:
        fields = " ".join(
            f'{{.status.conditions[?(@.type=="{each}")].status}}' for each in conditions
        )
        template = f'jsonpath={{.metadata.name}} {fields}{{"\\n"}}'
        self._conditions = conditions
        self.reached: dict[str, dict[str, float]] = defaultdict(dict)
        # Of a list in pages kubectl would print nothing but the pages.
        watching = ("get", kind, "--watch", "--chunk-size=0", "-o", template)
        self._process = subprocess.Popen(
            ("kubectl", "-n", kubectl.namespace, *watching),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            now = time.time()
            name, *values = line.rstrip("\n").split(" ")
            for condition, value in zip(self._conditions, values, strict=True):
                if value == "True":
                    self.reached[condition].setdefault(name, now)

    def wait(self, condition: str, count: int, seconds: float, say: Callable[[str], None]) -> None:
        """Until so many have it. Says how far it is."""
        began = told = time.monotonic()
        while len(self.reached[condition]) < count:
            if self._process.poll() is not None:
                raise SystemExit("kubectl get --watch has ended")
            now = time.monotonic()
            if now - began > seconds:
                done = len(self.reached[condition])
                raise SystemExit(f"{condition}: {done} of {count} after {seconds:.0f} s")
            if now - told > 10:
                told = now
                done = len(self.reached[condition])
                say(f"{condition}: {done:,} of {count:,} after {now - began:.0f} s")
            time.sleep(0.2)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
