"""A namespace of its own for each test, on the cluster of build/kubeconfig."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest

from examples.demo.chain import create_namespace
from examples.demo.kubectl import Kubectl


@pytest.fixture
def kubectl(request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """kubectl in a fresh namespace that admits only pods without privileges."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40].strip("-")
    made = create_namespace(f"{words}-{uuid.uuid4().hex[:6]}")
    yield made
    made.run("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture(scope="session")
def default_namespace() -> Kubectl:
    """For tests that create nothing."""
    return Kubectl("default")
