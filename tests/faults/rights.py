"""The operator's rights as the chart grants them, and an operator that lacks some of them.

The API server itself decides: the proxy passes each request on in the name of a user with a Role.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count, product
from pathlib import Path

from tests.chart.rendering import of_kind, rendered
from tests.cluster.manifests import claim
from tests.faults.api_server import ApiServer
from tests.faults.operator_process import OperatorProcess, Surroundings
from tests.faults.proxy import Proxy
from tests.faults.scenario import Team

REFUSAL = re.compile(r'cannot (\w+) resource "([^"]+)" in API group "([^"]*)"')
ROLES = "rbac.authorization.k8s.io"
OF_THE_CLUSTER = {"tuningpolicies", "namespaces"}
numbers = count(1)


@dataclass(frozen=True, order=True)
class Right:
    """One verb on one resource."""

    verb: str
    resource: str
    group: str

    @property
    def is_of_the_cluster(self) -> bool:
        """Of something that lies in no namespace."""
        return self.resource in OF_THE_CLUSTER

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}"

    def rule(self) -> dict[str, list[str]]:
        return {"apiGroups": [self.group], "resources": [self.resource], "verbs": [self.verb]}


def granted() -> list[Right]:
    """Every right that the chart gives, those for the lease included."""
    objects = rendered({"operator": {"namespaces": ["team"]}, "roles": {"aggregate": False}})
    roles = [*of_kind(objects, "Role"), *of_kind(objects, "ClusterRole")]
    return sorted(
        Right(verb, resource, group)
        for role in roles
        for rule in role["rules"]
        for group, resource, verb in product(rule["apiGroups"], rule["resources"], rule["verbs"])
    )


def refused(proxy: Proxy) -> set[Right]:
    """What the operator asked for and had no right to."""
    found = (REFUSAL.search(text.replace('\\"', '"')) for text in proxy.forbidden)
    return {Right(*each.groups()) for each in found if each}


@dataclass(frozen=True)
class Operated:
    """A namespace, its operator, and the operator's way to the API server."""

    team: Team
    operator: OperatorProcess
    proxy: Proxy


@asynccontextmanager
async def operated(
    api: ApiServer, folder: Path, session: str, rights: Iterable[Right]
) -> AsyncIterator[Operated]:
    """An operator of one namespace with these rights and no others."""
    name = f"rights-{session}-{next(numbers)}"
    await api.create("namespaces", None, {"metadata": {"name": name}})
    await api.create("persistentvolumeclaims", name, claim("adapters"))
    await _allow(api, name, rights)
    around = folder / name
    around.mkdir(parents=True)
    proxy = Proxy(api.connections, user=name)
    await proxy.start()
    operator = OperatorProcess(Surroundings(proxy.address, around, name, (name,)))
    operator.start()
    try:
        yield Operated(Team(api, name), operator, proxy)
    finally:
        await operator.close()
        await proxy.close()
        await api.delete("namespaces", None, name)
        for plural in ("clusterrolebindings", "clusterroles"):
            await api.delete(plural, None, name)


async def _allow(api: ApiServer, name: str, rights: Iterable[Right]) -> None:
    """User and roles are called like the namespace."""
    rights = list(rights)
    for kind, namespace in (("Role", name), ("ClusterRole", None)):
        rules = [each.rule() for each in rights if each.is_of_the_cluster == (namespace is None)]
        named = {"metadata": {"name": name}}
        await api.create(f"{kind.lower()}s", namespace, named | {"rules": rules})
        binding = {
            "roleRef": {"apiGroup": ROLES, "kind": kind, "name": name},
            "subjects": [{"apiGroup": ROLES, "kind": "User", "name": name}],
        }
        await api.create(f"{kind.lower()}bindings", namespace, named | binding)
