"""The whole chain, once; its namespace goes before other tests want the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.demo import chain
from examples.demo.kubectl import Kubectl

NAMESPACE = "end-to-end"


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The base model's folder and the dataset's file."""
    return chain.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def kubectl(inputs: tuple[Path, Path]) -> Iterator[Kubectl]:
    """A namespace whose claims hold model and data."""
    found = Kubectl(NAMESPACE)
    if found.find("namespace", NAMESPACE):
        found.run("delete", "namespace", NAMESPACE, "--wait", timeout=300)
    made = chain.create_namespace(NAMESPACE)
    chain.fill_claims(made, *inputs)
    yield made
    made.run("delete", "namespace", NAMESPACE, "--wait=false")
