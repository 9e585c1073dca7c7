"""Log lines: JSON with the object that they are about in fields of their own, or plain text."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from tunesmith.kube.key import CURRENT, Key
from tunesmith.settings import LogFormat

#: Attributes of a record, and the fields that they become.
FIELDS = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "exception"}
#: What kopf adds to a record for itself.
KOPFS_OWN = ("k8s_ref", "k8s_skip", "settings")


def configure_logs(chosen: LogFormat) -> None:
    """Everything goes to standard error, also what ends the process."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines()
        if chosen is LogFormat.JSON
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # kopf tells of every event that reached the queue.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    if chosen is LogFormat.JSON:
        sys.excepthook = lambda *error: logging.getLogger(__name__).critical(
            "the operator ends: %s", error[1], exc_info=error
        )


class JsonLines(JsonFormatter):
    """A JSON object a line, with kind, namespace and name of whom it is about."""

    def __init__(self) -> None:
        super().__init__(
            ["asctime", "levelname", "name", "message"],
            rename_fields=FIELDS,
            reserved_attrs=[*RESERVED_ATTRS, *KOPFS_OWN],
        )

    def formatTime(self, record: logging.LogRecord, _: str | None = None) -> str:  # noqa: N802
        moment = datetime.fromtimestamp(record.created, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        if about := CURRENT.get() or _kopfs_object(record):
            log_data |= {"kind": about.kind, "namespace": about.namespace, "name": about.name}


def _kopfs_object(record: logging.LogRecord) -> Key | None:
    told = getattr(record, "k8s_ref", {})
    if not told:
        return None
    return Key(*(str(told.get(field)) for field in ("kind", "namespace", "name")))
