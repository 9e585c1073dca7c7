"""What no file of a stranger's may take, in this process. bounds.py of the trainer forks."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

MOST_SECONDS = 5


@contextmanager
def quick_and_small() -> Iterator[None]:
    """Of the processor's time, as a busy machine gives it late; what is too much takes minutes."""
    tracemalloc.start()
    started = time.process_time()
    try:
        yield
        assert time.process_time() - started < MOST_SECONDS
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()
