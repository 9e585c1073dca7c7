"""The chart as helm renders it, without a cluster."""

from __future__ import annotations

import json
import subprocess

import yaml

from examples.demo.chain import ROOT
from examples.demo.kubectl import Object

HELM = str(ROOT / "build" / "bin" / "helm")
CHART = ROOT / "charts" / "tunesmith"
NAMESPACE = "tunesmith-system"


class HelmError(Exception):
    """helm refused; the message is what it printed."""


def rendered(values: Object | None = None) -> list[Object]:
    """All objects, with these values over the chart's own."""
    text = _helm("template", "tunesmith", str(CHART), values=values)
    return [each for each in yaml.safe_load_all(text) if each]


def lint(values: Object | None = None) -> str:
    return _helm("lint", "--strict", str(CHART), values=values)


def _helm(*arguments: str, values: Object | None) -> str:
    done = subprocess.run(
        [HELM, *arguments, "--namespace", NAMESPACE, "--values", "-"],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise HelmError(done.stderr + done.stdout)
    return done.stdout


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [each for each in objects if each["kind"] == kind]


def named(objects: list[Object], kind: str, name: str, namespace: str | None = None) -> Object:
    (found,) = (
        each
        for each in of_kind(objects, kind)
        if each["metadata"]["name"] == name and each["metadata"].get("namespace") == namespace
    )
    return found
