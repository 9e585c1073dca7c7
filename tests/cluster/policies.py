"""TuningPolicies that tests apply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from examples.demo.kubectl import Kubectl, KubectlError, Object

API = "tunesmith.dev/v1alpha1"


@contextmanager
def policy(name: str, **spec: Any) -> Iterator[str]:
    """A policy of this name for as long as it is needed."""
    apply_policy(name, **spec)
    try:
        yield name
    finally:
        Kubectl("default").run("delete", "tuningpolicy", name, "--ignore-not-found")


def apply_policy(name: str, **spec: Any) -> None:
    metadata = {"name": name}
    Kubectl("default").apply(
        {"apiVersion": API, "kind": "TuningPolicy", "metadata": metadata, "spec": spec}
    )


def only(namespace: str) -> Object:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}


def refusal(kubectl: Kubectl, wanted: Object) -> str | None:
    """Why the API server does not let it in; None when it does. Nothing is left behind."""
    try:
        kubectl.run("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(wanted))
    except KubectlError as error:
        return str(error)
    return None
