"""What a trainer pod reads and writes: volumes, credentials, and its part of the plan. Pure.

Credentials are environment variables from keys of Secrets, not volumes: a pod whose Secret or key
is missing then says so in its status, which the operator can read; Secrets it may not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tunesmith.api.credentials import KEYS, OCI_KEYS, Key, variable
from tunesmith.api.locations import parse_location
from tunesmith.api.objects import SecretReference
from tunesmith.api.output import OciTarget
from tunesmith.api.trainer_contract import PlannedRegistry, PlannedSource
from tunesmith.kube.volumes import Mount, mount, path_in_pod

Object = dict[str, Any]


class Role(StrEnum):
    """What a source is to a plan; the environment variables of its credentials begin with it."""

    BASE_MODEL = "BASE_MODEL"
    DATASET = "DATASET"
    ADAPTER = "ADAPTER"
    MERGED_MODEL = "MERGED_MODEL"
    OUTPUT = "OUTPUT"
    REGISTRY = "REGISTRY"


@dataclass(frozen=True)
class Source:
    """One place. ``role`` is a Role, or for one of several suites a word of its own."""

    uri: str
    role: str
    secret: SecretReference | None = None
    #: What its bytes must be.
    content_digest: str | None = None
    writable: bool = False

    def within(self, path: str) -> Source:
        """A place below this one, opened by the same Secret."""
        return replace(self, uri=str(parse_location(self.uri) / path), content_digest=None)

    def planned(self) -> PlannedSource:
        """The source as the trainer's pod sees it."""
        return PlannedSource(
            uri=self.uri,
            path=path_in_pod(parse_location(self.uri)),
            credentials=self.role if self.secret and self._keys() else None,
            content_digest=self.content_digest,
        )

    def mount(self) -> Mount:
        return mount(self.uri, writable=self.writable)

    def variables(self) -> list[Object]:
        """Environment variables with the keys of its Secret."""
        return keys_from(self.secret, self.role, self._keys())

    def _keys(self) -> tuple[Key, ...]:
        return KEYS[parse_location(self.uri).scheme]


def keys_from(secret: SecretReference | None, prefix: str, keys: Iterable[Key]) -> list[Object]:
    """An environment variable for each key of a Secret; none without a Secret."""
    if secret is None:
        return []
    return [
        {
            "name": variable(prefix, key.name),
            "valueFrom": {
                "secretKeyRef": {
                    "name": secret.name,
                    "key": key.name,
                    **({"optional": True} if key.optional else {}),
                }
            },
        }
        for key in keys
    ]


def planned_registry(target: OciTarget | None) -> PlannedRegistry | None:
    if target is None:
        return None
    return PlannedRegistry(
        reference=target.reference,
        credentials=Role.REGISTRY if target.secret_ref else None,
        insecure=target.insecure,
    )


def registry_variables(target: OciTarget | None) -> list[Object]:
    """Environment variables that open the registry."""
    return keys_from(target.secret_ref if target else None, Role.REGISTRY, OCI_KEYS)
