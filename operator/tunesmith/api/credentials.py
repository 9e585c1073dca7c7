"""Credentials of sources and outputs: the keys of their Secrets, and how the trainer sees them.

Each source has a Secret of its own, so two sources may hold different values for one key. In the
pod a key becomes the environment variable PREFIX_KEY, with a prefix for each source of the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.api.locations import Scheme


@dataclass(frozen=True)
class Key:
    """A key of a Secret. One that is not optional keeps the pod from starting while it lacks."""

    name: str
    optional: bool = False


HUB_TOKEN = "HF_TOKEN"
S3_ACCESS_KEY = "AWS_ACCESS_KEY_ID"
S3_SECRET_KEY = "AWS_SECRET_ACCESS_KEY"
S3_SESSION_TOKEN = "AWS_SESSION_TOKEN"
S3_ENDPOINT = "AWS_ENDPOINT_URL"
S3_REGION = "AWS_REGION"
#: The whole value of the header Authorization, such as "Bearer ...".
HTTPS_AUTHORIZATION = "HTTPS_AUTHORIZATION"
OCI_USERNAME = "OCI_USERNAME"
OCI_PASSWORD = "OCI_PASSWORD"

KEYS: Mapping[Scheme, tuple[Key, ...]] = {
    Scheme.HUB: (Key(HUB_TOKEN),),
    Scheme.S3: (
        Key(S3_ACCESS_KEY),
        Key(S3_SECRET_KEY),
        Key(S3_SESSION_TOKEN, optional=True),
        Key(S3_ENDPOINT, optional=True),
        Key(S3_REGION, optional=True),
    ),
    Scheme.HTTPS: (Key(HTTPS_AUTHORIZATION),),
    Scheme.PVC: (),
    Scheme.CONFIG_MAP: (),
}
OCI_KEYS = (Key(OCI_USERNAME), Key(OCI_PASSWORD))


def variable(prefix: str, key: str) -> str:
    """The environment variable that carries a key of the source with this prefix."""
    return f"{prefix}_{key}"


def credential(environment: Mapping[str, str], prefix: str | None, key: str) -> str | None:
    """What the environment says of a key.

    A source without a Secret takes what podTemplate.env, or an identity of the pod, provides.
    """
    return environment.get(variable(prefix, key) if prefix else key) or None
