"""The operator's rights, judged by the API server's audit log of everything that ran before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from examples.demo.chain import ROOT
from examples.demo.kubectl import Kubectl

#: Asked for only where a watch lags behind what the operator knows: not in every run.
WHERE_WATCHES_LAG = {
    ("tunesmith.dev", "finetunejobs", "get"),
    ("tunesmith.dev", "evalruns", "get"),
}
USER = "system:serviceaccount:tunesmith-system:tunesmith-operator"


def requests() -> Iterator[dict[str, Any]]:
    with (ROOT / "build" / "cluster" / "audit.log").open() as log:
        for line in log:
            if USER in line:
                yield json.loads(line)


#: What the API server also answers with 403 although the right is there: nobody may create
#: anything in a namespace that is being deleted, nor more than a quota leaves.
REFUSED_TO_ANYBODY = ("being terminated", "exceeded quota")


def test_the_operator_was_refused_nothing() -> None:
    denied = [
        (each["verb"], each["requestURI"])
        for each in requests()
        if each.get("responseStatus", {}).get("code") == 403
        and not any(
            reason in each["responseStatus"].get("message", "") for reason in REFUSED_TO_ANYBODY
        )
    ]
    assert denied == []


def test_the_operator_used_every_right_it_has() -> None:
    granted = {
        (group, resource, verb)
        for role in ("tunesmith-operator", "tunesmith-policies")
        for rule in Kubectl("default").get("clusterrole", role)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted - set(used()) - WHERE_WATCHES_LAG == set()


def used() -> Iterator[tuple[str, str, str]]:
    for each in requests():
        target = each.get("objectRef", {})
        if "resource" in target:
            parts = (target["resource"], target.get("subresource"))
            resource = "/".join(part for part in parts if part)
            yield target.get("apiGroup", ""), resource, each["verb"]
            if each["verb"] == "patch":
                # Server-side apply of something new is logged as a patch and needs both rights.
                yield target.get("apiGroup", ""), resource, "create"


def test_the_operator_never_read_a_secret() -> None:
    read = [
        each["requestURI"]
        for each in requests()
        if each.get("objectRef", {}).get("resource") == "secrets"
    ]
    assert read == []
