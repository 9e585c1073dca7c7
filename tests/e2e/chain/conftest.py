"""The whole chain, once; its namespace goes before other tests want the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.demo import chain
from examples.demo.kubectl import Kubectl, Object

NAMESPACE = "end-to-end"


def until(seconds: float, look: Callable[[], Object | None]) -> Object:
    """Look every second until something is found."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(1)
    raise AssertionError(f"not seen within {seconds:.0f} s")


@pytest.fixture(scope="package")
def kubectl(inputs: tuple[Path, Path]) -> Iterator[Kubectl]:
    """A namespace whose claims hold model and data."""
    found = Kubectl(NAMESPACE)
    if found.find("namespace", NAMESPACE):
        found.run("delete", "namespace", NAMESPACE, "--wait", timeout=300)
    made = chain.create_namespace(NAMESPACE)
    chain.fill_claims(made, *inputs)
    yield made
    made.run("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="package")
def applied(kubectl: Kubectl) -> Kubectl:
    """The demonstration's two files, applied."""
    kubectl.apply(str(chain.HERE / "finetune.yaml"))
    kubectl.apply(str(chain.HERE / "serve.yaml"))
    return kubectl
