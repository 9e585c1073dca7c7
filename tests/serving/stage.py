"""A namespace with a base model and adapters on claims: the stage for tests of serving."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from examples.demo import chain
from examples.demo.kubectl import Kubectl, Object, conditions
from tests.serving import adapters

PROMPT = "The capital of France is"
BASE_URI = f"pvc://library/models/{chain.MODEL_NAME}"


@dataclass(frozen=True)
class Made:
    """An adapter that lies on the claim."""

    name: str
    folder: str
    digest: str

    @property
    def version(self) -> str:
        return self.digest.removeprefix("sha256:")[:12]

    @property
    def model(self) -> str:
        return f"{self.name}@{self.version}"

    def entry(self, gate: str = "None") -> Object:
        """How an AdapterDeployment names it."""
        uri = f"pvc://adapters/{self.folder}"
        return {"name": self.name, "uri": uri, "digest": self.digest, "gate": gate}


@dataclass
class Stage:
    """The namespace, and what was put there."""

    kubectl: Kubectl
    work: Path
    model_folder: Path
    model: adapters.Model
    references: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def build(cls, namespace: str, work: Path) -> Stage:
        """Make the namespace anew, with the base model on its claim."""
        kubectl = Kubectl(namespace)
        if kubectl.find("namespace", namespace):
            kubectl.run("delete", "namespace", namespace, "--wait", timeout=300)
        model_folder, _ = chain.make_inputs(work)
        chain.create_namespace(namespace)
        kubectl.apply(str(chain.HERE / "claims.yaml"))
        kubectl.apply(str(chain.HERE / "loader.yaml"))
        kubectl.wait("pod/loader", "Ready", 120)
        stage = cls(kubectl, work, model_folder, adapters.Model.read(model_folder))
        stage.copy(model_folder, f"models/{chain.MODEL_NAME}", "/library")
        return stage

    def copy(self, source: Path, name: str, claim: str) -> None:
        """Copy a folder onto a claim, through a pod, as on any cluster."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as packed:
            packed.add(source, name, filter=chain._owned_by_nobody)
        unpack = ["exec", "-i", "loader", "--", "tar", "-x", "--no-same-owner", "-C", claim]
        self.kubectl.run(*unpack, stdin=archive.getvalue(), timeout=600)

    def put(self, wanted: dict[str, tuple[str, adapters.Recipe]]) -> dict[str, Made]:
        """Write adapters and copy them onto the claim: key → (served name, recipe)."""
        root = self.work / f"adapters-{time.monotonic_ns()}"
        made = {}
        for key, (name, recipe) in wanted.items():
            digest = adapters.write(root / key, self.model, recipe)
            made[key] = Made(name, key, digest)
        for each in root.iterdir():
            self.copy(each, each.name, "/adapters")
        self._measure(root, made)
        return made

    def put_many(self, wanted: dict[str, tuple[str, adapters.Recipe]]) -> dict[str, Made]:
        """Like ``put`` for very many: one copy, and nobody asks transformers about them."""
        root = self.work / f"adapters-{time.monotonic_ns()}"
        made = {
            key: Made(name, f"many/{key}", adapters.write(root / key, self.model, recipe))
            for key, (name, recipe) in wanted.items()
        }
        self.copy(root, "many", "/adapters")
        return made

    def _measure(self, root: Path, made: dict[str, Made]) -> None:
        """What each good adapter says first, by transformers and PEFT."""
        good = {each.model: root / key for key, each in made.items() if not key.startswith("bad-")}
        python = str(chain.ROOT / "build" / "venvs" / "ml" / "bin" / "python")
        command = [python, "-m", "tests.serving.reference", str(self.model_folder), PROMPT]
        command += [f"{model}={folder}" for model, folder in good.items()]
        done = subprocess.run(
            command,
            capture_output=True,
            check=True,
            cwd=chain.ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "2"},
        )
        found = json.loads(done.stdout.splitlines()[-1])
        self.references[chain.MODEL_NAME] = found.pop("base")
        self.references |= found

    def serve(self, name: str, entries: list[Object], **spec: object) -> None:
        """Apply an AdapterDeployment for a machine without a GPU."""
        self.kubectl.apply(
            {
                "apiVersion": "tunesmith.dev/v1alpha1",
                "kind": "AdapterDeployment",
                "metadata": {"name": name},
                "spec": {
                    "baseModel": {"uri": BASE_URI},
                    "adapters": {"named": entries},
                    "maxModelLength": 512,
                    "resources": {"gpus": 0, "cpu": "200m", "memory": "6Gi"},
                    "podTemplate": {"env": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"}]},
                    **spec,
                },
            }
        )

    def patch(self, name: str, spec: Object) -> None:
        # Through a file: a thousand adapters are too much for a command line.
        patch = ["--type=merge", "--patch-file=/dev/stdin"]
        text = json.dumps({"spec": spec})
        self.kubectl.run("patch", "adapterdeployment", name, *patch, stdin=text)

    def status(self, name: str) -> Object:
        return dict(self.kubectl.get("adapterdeployment", name).get("status", {}))

    def until(
        self, name: str, seconds: float, what: Callable[[Object], bool], pause: float = 0.1
    ) -> float:
        """Wait until status is as described; how long it took in seconds."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if what(self.status(name)):
                return time.monotonic() - began
            time.sleep(pause)
        raise AssertionError(
            f"not so within {seconds:.0f} s: {json.dumps(self.status(name), indent=1)[:4000]}"
        )

    def until_ready(self, name: str, seconds: float = 300) -> float:
        """Wait until the operator has seen the present spec and finds everything served."""

        def ready(_: Object) -> bool:
            raw = self.kubectl.get("adapterdeployment", name)
            told = conditions(raw).get("Ready", {})
            fresh = told.get("observedGeneration") == raw["metadata"]["generation"]
            return fresh and told.get("status") == "True"

        return self.until(name, seconds, ready)

    def address(self, name: str) -> str:
        """The Service's address in the cluster; this machine is a node and reaches it."""
        service = self.kubectl.get("service", f"{name}-vllm")
        return f"http://{service['spec']['clusterIP']}"

    def pods(self, name: str) -> list[Object]:
        selector = f"tunesmith.dev/adapterdeployment={name},tunesmith.dev/serves=adapters"
        found = self.kubectl.list("pods", selector)
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]


def install_operator(image: str) -> None:
    """Upgrade the chart's release to another image of the operator, and wait until it acts."""
    subprocess.run(
        [
            *("helm", "upgrade", "tunesmith", str(chain.ROOT / "charts" / "tunesmith")),
            *("--namespace", "tunesmith-system", "--reset-then-reuse-values", "--wait"),
            *("--set", f"images.operator={image}"),
        ],
        check=True,
        capture_output=True,
    )


def restarts(pod: Object, container: str = "main") -> int:
    status = pod["status"]
    states = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next(int(each["restartCount"]) for each in states if each["name"] == container)


def served(status: Object, model: str) -> Object:
    """The entry of a version in status, empty if there is none."""
    for each in status.get("adapters", []):
        if f"{each['name']}@{each['version']}" == model:
            return dict(each)
    return {}
