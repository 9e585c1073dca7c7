"""Where a pod goes over the network: labels by which NetworkPolicies let it. Pure.

The chart's policies for trainer pods allow each of them what its labels name, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from tunesmith.api import GROUP
from tunesmith.api.locations import Scheme


class Destination(StrEnum):
    """A kind of place outside the pod, for which the platform team has an address."""

    HUB = "hub"
    S3 = "s3"
    HTTPS = "https"
    REGISTRY = "registry"
    JUDGE = "judge"
    TRACKER = "tracker"


#: Claims and ConfigMaps are brought by the kubelet.
_OF_SCHEMES = {
    Scheme.HUB: Destination.HUB,
    Scheme.S3: Destination.S3,
    Scheme.HTTPS: Destination.HTTPS,
}


def destinations(schemes: Iterable[Scheme]) -> set[Destination]:
    return {_OF_SCHEMES[each] for each in schemes if each in _OF_SCHEMES}


def reach_labels(reached: Iterable[Destination]) -> dict[str, str]:
    """No user can set them: the prefix is ours alone."""
    return {f"{GROUP}/reaches-{each}": "true" for each in sorted(reached)}
