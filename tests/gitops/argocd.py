"""Argo CD's own judgement of objects, by the health checks that the chart renders."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from examples.demo.chain import ROOT
from examples.demo.kubectl import Object

BINARIES = ROOT / "build" / "bin"
CHART = ROOT / "charts" / "tunesmith"


#: The ConfigMap with the health checks, in the namespace of Argo CD.
CHECKS = "tunesmith-argocd-health"


class Health(StrEnum):
    """Argo CD's words."""

    PROGRESSING = "Progressing"
    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"


@dataclass(frozen=True)
class Shown:
    """What Argo CD shows of an object."""

    health: Health
    message: str


@dataclass(frozen=True)
class ArgoCd:
    """Argo CD with this ConfigMap, as a file."""

    config_map: Path

    def shows(self, raw: Object) -> Shown:
        told = json.loads(_argocd("health", str(self.config_map), stdin=json.dumps(raw)))
        assert told is not None, f"Argo CD knows no health of a {raw['kind']}"
        return Shown(Health(told["status"]), told["message"])


def reads(manifest: Object) -> None:
    """Argo CD takes every field of its own kinds. Raises CalledProcessError."""
    _argocd("read", stdin=json.dumps(manifest))


def _argocd(*arguments: str, stdin: str) -> str:
    program = str(BINARIES / "argocd-says")
    return subprocess.run(
        [program, *arguments], input=stdin, capture_output=True, text=True, check=True
    ).stdout


def rendered(**values: Any) -> list[Object]:
    """The chart's objects with these values, given as PATH__TO__VALUE."""
    settings = [f"--set={key.replace('__', '.')}={value}" for key, value in values.items()]
    done = subprocess.run(
        [str(BINARIES / "helm"), "template", "tunesmith", str(CHART), *settings],
        capture_output=True,
        text=True,
        check=True,
    )
    return [each for each in yaml.safe_load_all(done.stdout) if each]
