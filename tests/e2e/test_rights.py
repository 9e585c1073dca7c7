"""The operator's rights, judged by the API server's audit log of everything that ran before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from examples.demo.chain import ROOT

USER = "system:serviceaccount:tunesmith-system:tunesmith-operator"


def requests() -> Iterator[dict[str, Any]]:
    with (ROOT / "build" / "cluster" / "audit.log").open() as log:
        for line in log:
            if USER in line:
                yield json.loads(line)


def test_the_operator_was_refused_nothing() -> None:
    denied = [
        (each["verb"], each["requestURI"])
        for each in requests()
        if each.get("responseStatus", {}).get("code") == 403
    ]
    assert denied == []


def test_the_operator_never_read_a_secret() -> None:
    read = [
        each["requestURI"]
        for each in requests()
        if each.get("objectRef", {}).get("resource") == "secrets"
    ]
    assert read == []
