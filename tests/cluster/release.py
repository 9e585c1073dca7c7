"""A release of the chart beside the installed one, which rests meanwhile and is left as found."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from examples.demo.chain import ROOT, create_namespace
from examples.demo.kubectl import Kubectl, Object

CHART = ROOT / "charts" / "tunesmith"
DEVELOPMENT = ROOT / "devcluster" / "chart-values.yaml"
INSTALLED, INSTALLED_IN = "tunesmith", "tunesmith-system"
NAME = "second"
#: A field that the version before does not have.
NEWER_FIELD = "ttlSecondsAfterFinished"
#: What other field managers wrote, a `kubectl scale` for example, is overwritten.
AS_WANTED = ("--force-conflicts", "--wait", "--timeout=120s")


def helm(*arguments: str, values: Object | None = None) -> str:
    """What helm prints. Raises CalledProcessError."""
    given = ("--values", "-") if values is not None else ()
    done = subprocess.run(
        ["helm", *arguments, *given],
        input=json.dumps(values or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


@dataclass(frozen=True)
class Release:
    """Its own namespace, and what it is installed with."""

    system: Kubectl
    values: Object

    def bring(self, chart: Path = CHART, image: str = "operator") -> None:
        """Install it, or upgrade it to this."""
        images = {"images": {"operator": f"tunesmith.dev/{image}:dev"}}
        # The definitions belonged to the release that rests.
        ways = ("--install", "--take-ownership", *AS_WANTED)
        place = (NAME, str(chart), "--namespace", self.system.namespace)
        helm("upgrade", *place, *ways, "--values", str(DEVELOPMENT), values=self.values | images)

    def remove(self) -> None:
        helm("uninstall", NAME, "--namespace", self.system.namespace, "--wait")

    def pods(self) -> list[Object]:
        found = self.system.list("pods", f"app.kubernetes.io/instance={NAME}")
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def holder(self) -> str:
        """Name of the pod that acts; empty when none does."""
        lease = self.system.find("lease", "tunesmith-operator") or {"spec": {}}
        return str(lease["spec"].get("holderIdentity", ""))


@contextmanager
def release_for(team: Kubectl, values: Object) -> Iterator[Release]:
    """Not yet installed; it looks after one namespace. The installed one neither acts meanwhile
    nor owns the definitions."""
    place = ("--namespace", INSTALLED_IN)
    found = yaml.safe_load(helm("get", "values", INSTALLED, *place, "--output", "yaml")) or {}
    resting = ("--reset-then-reuse-values", "--set", "operator.replicas=0,crds.install=false")
    helm("upgrade", INSTALLED, str(CHART), *place, *resting, *AS_WANTED)
    operators = ("pod", "-l", "app.kubernetes.io/component=operator")
    Kubectl(INSTALLED_IN).run("wait", "--for=delete", *operators, "--timeout=60s")
    system = create_namespace(f"chart-{uuid.uuid4().hex[:6]}")
    operator = {"namespaces": [team.namespace], "replicas": 2}
    try:
        yield Release(system, {"operator": operator} | values)
    finally:
        helm("uninstall", NAME, "--namespace", system.namespace, "--ignore-not-found")
        system.run("delete", "namespace", system.namespace, "--wait=false")
        restored = (INSTALLED, str(CHART), *place, "--take-ownership", *AS_WANTED)
        helm("upgrade", *restored, "--reset-values", values=found)


def previous_chart(folder: Path) -> Path:
    """The chart of a version before: its definitions lack a field, its objects carry its name.

    Made from this one, as a clone may come without its history.
    """
    chart = folder / "tunesmith"
    shutil.copytree(CHART, chart)
    about = chart / "Chart.yaml"
    about.write_text(about.read_text().replace("version: 0.1.0", "version: 0.0.9"))
    path = chart / "templates" / "crds" / "finetunejobs.yaml"
    _, condition, *lines, end = path.read_text().splitlines()
    definition = yaml.safe_load("\n".join(lines))
    (version,) = definition["spec"]["versions"]
    del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][NEWER_FIELD]
    path.write_text("\n".join([condition, yaml.safe_dump(definition), end]))
    return chart
