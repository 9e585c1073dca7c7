"""The one place that talks to the proxy of this pod."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from typing import Any

import aiohttp
from pydantic import BaseModel, ValidationError

from tunesmith.api.serving_contract import PROXY_CONTROL_PORT, DesiredState, Target, Traffic

log = logging.getLogger(__name__)

TIMEOUT = aiohttp.ClientTimeout(total=5)


class ProxyState(BaseModel):
    """Which routing table the proxy has, and what it counted."""

    digest: str = ""
    #: Unset where no key is asked for.
    clients: int | None = None
    traffic: dict[str, Traffic] = {}


def routing_table(desired: DesiredState, ready: Iterable[str], *, complete: bool) -> dict[str, Any]:
    """What the proxy is to answer, given the versions that are proven in this pod.

    A target that is not ready here is left out: its share goes to the others. ``complete`` lets
    the pod become ready.
    """
    able = {*ready, desired.base.name}
    routes = {model: [Target(model=model)] for model in sorted(able)}
    for route in desired.routes:
        if targets := [each for each in route.targets if each.model in able and each.weight > 0]:
            routes[route.name] = targets
    grants = desired.grants
    table: dict[str, Any] = {
        "base": desired.base.name,
        "base_address": desired.base_address,
        "complete": complete,
        # Wanted, and not here yet: others may have it, so it is no unknown name.
        "coming": sorted(
            ({each.name for each in desired.routes} | {each.model for each in desired.adapters})
            - routes.keys()
        ),
        "grants": {each.client: each.models for each in grants} if grants is not None else None,
        "routes": {
            name: [each.to_json() for each in targets] for name, targets in sorted(routes.items())
        },
    }
    text = json.dumps(table, sort_keys=True)
    return {"digest": hashlib.sha256(text.encode()).hexdigest()[:16], **table}


class Proxy:
    """The proxy's control door on loopback."""

    def __init__(self, session: aiohttp.ClientSession, port: int = PROXY_CONTROL_PORT) -> None:
        self._session = session
        self._root = f"http://127.0.0.1:{port}"

    async def state(self) -> ProxyState | None:
        """None while the proxy does not answer."""
        try:
            async with self._session.get(f"{self._root}/state", timeout=TIMEOUT) as response:
                return ProxyState.model_validate_json(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValidationError) as error:
            log.debug("the proxy did not answer: %s", error)
            return None

    async def put(self, table: dict[str, Any]) -> bool:
        """Store the table; whether the proxy took it."""
        try:
            url = f"{self._root}/routes"
            async with self._session.put(url, json=table, timeout=TIMEOUT) as response:
                return response.status < 300
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("the proxy did not take the routes: %s", error)
            return False
