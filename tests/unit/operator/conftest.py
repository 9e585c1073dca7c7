"""An adapter and its base model, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunesmith.sidecar.base_model import BaseModel

from tests.unit.operator.adapters import Adapter, base_model


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    return Adapter(tmp_path / "claim")


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return base_model(tmp_path / "base")
