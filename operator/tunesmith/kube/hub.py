"""How pods come to what lies on the Hugging Face Hub: there, on a mirror, or on a claim. Pure."""

from __future__ import annotations

from typing import Any

from tunesmith.api.locations import parse_location
from tunesmith.settings import HubAccess

Object = dict[str, Any]

VOLUME = "hub-cache"


def hub_variables(hub: HubAccess, folder: str) -> list[Object]:
    """What the hub's own library reads. With a cache nothing is looked for elsewhere."""
    chosen = {"HF_ENDPOINT": hub.endpoint} if hub.endpoint else {}
    if hub.cache:
        chosen |= {"HF_HUB_CACHE": folder, "HF_HUB_OFFLINE": "1"}
    return [{"name": name, "value": value} for name, value in chosen.items()]


def hub_volumes(hub: HubAccess) -> list[Object]:
    if not hub.cache:
        return []
    claim = parse_location(hub.cache).holder
    return [{"name": VOLUME, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}]


def hub_mounts(hub: HubAccess, folder: str) -> list[Object]:
    """The cache as the pod sees it: the whole claim, or a folder of it."""
    if not hub.cache:
        return []
    path = parse_location(hub.cache).path
    mount = {"name": VOLUME, "mountPath": folder, "readOnly": True}
    return [{**mount, **({"subPath": path} if path else {})}]
