"""The inputs that all end-to-end tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.demo import chain


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The base model's folder and the dataset's file."""
    return chain.make_inputs(tmp_path_factory.mktemp("inputs"))
