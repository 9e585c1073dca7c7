"""Log lines as a machine reads them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest
from tunesmith.kube.key import CURRENT, Key
from tunesmith.logs import JsonLines
from tunesmith.settings import LogFormat, settings_from

REQUIRED = {
    f"TUNESMITH_{name}_IMAGE": "image" for name in ("TRAINER", "SERVING", "OPERATOR")
}  # fmt: skip


def line(message: str, *arguments: Any, **more: Any) -> dict[str, Any]:
    """What a record becomes."""
    extra = more.pop("extra", None)
    logger = logging.getLogger("tunesmith.test")
    record = logger.makeRecord(
        logger.name, logging.WARNING, __file__, 1, message, arguments, more.get("exc_info"),
        extra=extra,
    )  # fmt: skip
    written = JsonLines().format(record)
    assert "\n" not in written
    return dict(json.loads(written))


def test_a_line_says_when_how_bad_where_from_and_what() -> None:
    found = line("%s of %s", "two", "three")
    moment = datetime.fromisoformat(found.pop("time"))
    assert abs(moment.timestamp() - datetime.now().timestamp()) < 60
    assert found == {"level": "WARNING", "logger": "tunesmith.test", "message": "two of three"}


def test_a_line_of_a_pass_names_the_object_in_fields_of_their_own() -> None:
    token = CURRENT.set(Key("FineTuneJob", "team", "triage"))
    found = line("created Job")
    CURRENT.reset(token)
    whose = {"kind": "FineTuneJob", "namespace": "team", "name": "triage"}
    assert found.items() >= whose.items()
    assert "name" not in line("of no object")


def test_what_kopf_says_of_an_object_has_the_same_fields() -> None:
    ref = {"kind": "EvalRun", "namespace": "team", "name": "run", "uid": "1", "apiVersion": "x/v1"}
    found = line("kopf speaks", extra={"k8s_ref": ref, "settings": object(), "k8s_skip": True})
    assert found.items() >= {"kind": "EvalRun", "namespace": "team", "name": "run"}.items()
    assert not {"k8s_ref", "settings", "k8s_skip"} & set(found)


def test_an_exception_is_one_field_of_one_line() -> None:
    try:
        raise ValueError("poison")
    except ValueError:
        found = line("pass failed", exc_info=sys.exc_info())
    assert found["message"] == "pass failed"
    assert found["exception"].splitlines()[-1] == "ValueError: poison"


def test_what_ends_the_process_is_such_a_line_too() -> None:
    program = (
        "from tunesmith.logs import *; configure_logs(LogFormat.JSON); raise OSError('no network')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    found = json.loads(done.stderr)
    assert found["level"] == "CRITICAL"
    assert found["exception"].splitlines()[-1] == "OSError: no network"


def test_lines_are_json_unless_text_is_asked_for() -> None:
    assert settings_from(REQUIRED).log_format is LogFormat.JSON
    chosen = settings_from(REQUIRED | {"TUNESMITH_LOG_FORMAT": "text"})
    assert chosen.log_format is LogFormat.TEXT
    with pytest.raises(SystemExit, match="write json or text"):
        settings_from(REQUIRED | {"TUNESMITH_LOG_FORMAT": "xml"})
