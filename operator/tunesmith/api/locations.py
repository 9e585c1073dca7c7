"""Where a model, a dataset or an adapter is: the URI schemes of the API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

CLAIM = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"

#: Regular expressions in the syntax that Python and CEL (RE2) share.
PVC_PATTERN = rf"^pvc://{CLAIM}(/[^/]+)+$"
PVC_FOLDER_PATTERN = rf"^pvc://{CLAIM}(/[^/]+)*$"
CONFIG_MAP_PATTERN = r"^configmap://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._a-zA-Z0-9]+$"
HUB_MODEL_PATTERN = r"^hf://[^/@: ]+/[^/@: ]+(@[^/@: ]+)?$"
HUB_DATASET_PATTERN = r"^hf://datasets/[^/@: ]+/[^/@: ]+(@[^/@: ]+)?(/[^/]+)+$"
BUCKET = "[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]"
S3_PATTERN = rf"^s3://{BUCKET}(/[^/]+)+$"
S3_FOLDER_PATTERN = rf"^s3://{BUCKET}(/[^/]+)*$"
#: Without user, query and fragment: what opens a place belongs into a Secret, as uris are logged.
HTTPS_PATTERN = r"^https://[-a-zA-Z0-9.]+(:[0-9]+)?(/[^/?#]+)+$"
#: REGISTRY[:PORT]/REPOSITORY:TAG of an OCI registry.
OCI_PATTERN = (
    r"^[-a-zA-Z0-9.]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+:[A-Za-z0-9_][-._A-Za-z0-9]{0,127}$"
)
ARCHIVE_PATTERN = r"^https://[-a-zA-Z0-9.]+(:[0-9]+)?(/[^/?#]+)*/[^/?#]+[.](tar|tar[.]gz|tgz)$"


def any_of(*patterns: str) -> str:
    """A CEL expression: the uri has one of these forms."""
    return " || ".join(f"self.matches('{pattern}')" for pattern in patterns)


class Scheme(StrEnum):
    """The kind of place a URI points into."""

    HUB = "hf"
    PVC = "pvc"
    CONFIG_MAP = "configmap"
    S3 = "s3"
    HTTPS = "https"


@dataclass(frozen=True)
class Location:
    """A URI taken apart.

    ``holder`` is the claim, the ConfigMap, the hub repository, the bucket or the host; ``path``
    what lies inside it, without a leading slash; ``revision`` is only set for hub repositories.
    """

    scheme: Scheme
    holder: str
    path: str
    revision: str | None = None

    def __truediv__(self, name: str) -> Location:
        path = f"{self.path}/{name}" if self.path else name
        return Location(self.scheme, self.holder, path, self.revision)

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        path = f"/{self.path}" if self.path else ""
        return f"{self.scheme}://{self.holder}{revision}{path}"


class LocationError(ValueError):
    """A uri that leads nowhere; the message is a sentence for a user."""


def parse_location(uri: str) -> Location:
    """Take a URI apart.

    Raises LocationError. The CRD's rules refuse such URIs earlier; this guards what reached the
    cluster by another way.
    """
    match re.match(r"^([a-z0-9]+)://(.+)$", uri):
        case None:
            raise LocationError(
                f"{uri!r} is no URI: write pvc://CLAIM/PATH, s3://BUCKET/PATH or "
                "hf://ORGANISATION/NAME"
            )
        case found:
            scheme_name, rest = found.group(1), found.group(2).strip("/")
    if any(part in {".", ".."} for part in rest.split("/")):
        raise LocationError(f"{uri!r} must not contain '.' or '..' as a part of its path")
    match scheme_name:
        case Scheme.PVC | Scheme.CONFIG_MAP | Scheme.S3 | Scheme.HTTPS:
            holder, _, path = rest.partition("/")
            return Location(Scheme(scheme_name), holder, path)
        case Scheme.HUB:
            return _parse_hub(rest)
        case _:
            raise LocationError(f"{uri!r} has the unknown scheme {scheme_name}://")


def _parse_hub(rest: str) -> Location:
    parts = rest.split("/")
    length = 3 if parts[0] == "datasets" else 2
    repository, path = "/".join(parts[:length]), "/".join(parts[length:])
    name, _, revision = repository.partition("@")
    return Location(Scheme.HUB, name, path, revision or None)
