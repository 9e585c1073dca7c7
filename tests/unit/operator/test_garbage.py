"""What stays is left alone by the garbage collector, and what went is not kept for that."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
from tunesmith.garbage import leave_alone_what_stays


class Ring:
    """Refers to itself: only the garbage collector can free it."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture(autouse=True)
def usual_collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_what_was_left_alone_and_went_since_is_freed_at_the_next_look() -> None:
    ring = Ring()
    watched = weakref.ref(ring)
    leave_alone_what_stays()
    del ring
    gc.collect()
    assert watched() is not None, "it was left alone"
    leave_alone_what_stays()
    assert watched() is None
