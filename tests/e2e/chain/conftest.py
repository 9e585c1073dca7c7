"""The whole chain, once; its namespace goes before other tests want the machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.demo.kubectl import Kubectl, Object
from tests.e2e.quick_start import Walk

#: As docs/quick-start.md calls it.
NAMESPACE = "quick-start"


def until(seconds: float, look: Callable[[], Object | None]) -> Object:
    """Look every second until something is found."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(1)
    raise AssertionError(f"not seen within {seconds:.0f} s")


@pytest.fixture(scope="package")
def walk(inputs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Walk:
    """The quick start, whose own commands are run; the model is unpacked by then."""
    return Walk(tmp_path_factory.mktemp("new-user"))


@pytest.fixture(scope="package")
def kubectl(walk: Walk) -> Iterator[Kubectl]:
    """Up to the namespace whose claims hold model and data."""
    found = Kubectl(NAMESPACE)
    if found.find("namespace", NAMESPACE):
        found.run("delete", "namespace", NAMESPACE, "--wait", timeout=300)
    walk.take("inputs", "install", "files")
    yield found
    found.run("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(scope="package")
def applied(kubectl: Kubectl, walk: Walk) -> Kubectl:
    """The quick start's two files, applied."""
    walk.take("apply")
    return kubectl
