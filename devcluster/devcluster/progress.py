"""Telling whoever waits what is being done, and for how long already."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class ClusterError(Exception):
    """Something a person has to look at; its text says what and where."""


def say(text: str) -> None:
    print(f"devcluster: {text}", flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Name a step when it begins and its duration when it is done."""
    began = time.monotonic()
    say(f"{what} …")
    yield
    say(f"{what}: done in {time.monotonic() - began:.1f} s")
