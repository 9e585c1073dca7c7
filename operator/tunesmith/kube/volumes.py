"""Where locations appear inside a pod: claims and ConfigMaps as volumes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.api.locations import Location, Scheme, parse_location
from tunesmith.api.trainer_contract import CLAIMS_FOLDER, CONFIG_MAPS_FOLDER

Object = dict[str, Any]


@dataclass(frozen=True)
class Mount:
    """A location that a pod needs, and whether it writes there."""

    location: Location
    writable: bool = False


def mount(uri: str, *, writable: bool = False) -> Mount:
    return Mount(parse_location(uri), writable)


def claim(name: str) -> Mount:
    """A whole claim, to be read."""
    return Mount(Location(Scheme.PVC, name, ""))


def path_in_pod(location: Location) -> str | None:
    """The path under which the pod sees the location; None for what the trainer fetches."""
    match location.scheme:
        case Scheme.PVC:
            return f"{CLAIMS_FOLDER}/{location.holder}/{location.path}".rstrip("/")
        case Scheme.CONFIG_MAP:
            return f"{CONFIG_MAPS_FOLDER}/{location.holder}/{location.path}"
        case Scheme.HUB | Scheme.S3 | Scheme.HTTPS:
            return None


def volumes(mounts: list[Mount]) -> tuple[list[Object], list[Object]]:
    """Volumes and volume mounts: one per claim or ConfigMap, writable if any use writes."""
    writable: dict[tuple[Scheme, str], bool] = {}
    for each in mounts:
        key = (each.location.scheme, each.location.holder)
        writable[key] = writable.get(key, False) or each.writable
    found, mounted = [], []
    for number, ((scheme, holder), may_write) in enumerate(sorted(writable.items())):
        name = f"source-{number}"
        match scheme:
            case Scheme.PVC:
                source: Object = {"persistentVolumeClaim": {"claimName": holder}}
                folder = f"{CLAIMS_FOLDER}/{holder}"
            case Scheme.CONFIG_MAP:
                source = {"configMap": {"name": holder}}
                folder = f"{CONFIG_MAPS_FOLDER}/{holder}"
            case Scheme.HUB | Scheme.S3 | Scheme.HTTPS:
                continue
        found.append({"name": name, **source})
        mounted.append({"name": name, "mountPath": folder, "readOnly": not may_write})
    return found, mounted
