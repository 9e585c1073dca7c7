"""Makes the profile known before pytest asks for it."""

from __future__ import annotations

from tests.model import profiles

__all__ = ["profiles"]
