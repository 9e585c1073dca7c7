"""Whether an object is as wanted, although the API server added to it. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from tunesmith.kube.labels import APPLIED

Object = dict[str, Any]


def marked(manifest: Object) -> Object:
    """The object with a digest of itself: a field that is no longer wanted is a difference too."""
    text = json.dumps(manifest, sort_keys=True)
    metadata = manifest["metadata"]
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    annotations = {**metadata.get("annotations", {}), APPLIED: digest}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def contains(actual: object, wanted: object, *, quantities: bool = False) -> bool:
    """Whether every wanted field is there; what the API server added does not matter.

    Lists must have the same length, as defaults are added inside members, not beside them.
    """
    match wanted, actual:
        case dict(), dict():
            return all(
                contains(
                    actual.get(key),
                    value,
                    quantities=quantities or key in ("resources", "sizeLimit"),
                )
                or (value in ({}, []) and key not in actual)
                for key, value in wanted.items()
            )
        case list(), list():
            return len(wanted) == len(actual) and all(
                contains(one, other, quantities=quantities)
                for one, other in zip(actual, wanted, strict=True)
            )
        case str(), str():
            return actual == wanted or (quantities and _same_quantity(actual, wanted))
        case _:
            return actual == wanted or (actual is None and wanted == "")


def _same_quantity(one: str, other: str) -> bool:
    """The API server writes quantities its own way: 1024Mi comes back as 1Gi."""
    try:
        return bool(parse_quantity(one) == parse_quantity(other))
    except ValueError:
        return False
