"""The how-tos, taken at their word by the real API server."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.demo.kubectl import Kubectl
from tests.unit.docs.pages import ROOT, Page

HOW_TOS = [Page(path) for path in sorted((ROOT / "docs" / "how-to").glob("*.md"))]


def shown(page: Page) -> list[dict[str, Any]]:
    return [raw for block in page.blocks("yaml") for raw in yaml.safe_load_all(block)]


@pytest.mark.parametrize("page", HOW_TOS, ids=lambda page: page.path.stem)
def test_what_a_how_to_shows_is_admitted(page: Page, default_namespace: Kubectl) -> None:
    if found := shown(page):
        text = yaml.safe_dump_all(found)
        default_namespace.run("apply", "--dry-run=server", "-f", "-", stdin=text)


def test_the_commands_of_the_how_tos_do_what_they_say(kubectl: Kubectl, tmp_path: Path) -> None:
    """Upon objects of these names that are at rest."""
    for raw in (each for page in HOW_TOS for each in shown(page)):
        rest: dict[str, dict[str, Any]] = {
            "AdapterDeployment": {"replicas": 0},
            "FineTuneJob": {"suspend": True},
        }
        if raw["metadata"]["name"] in ("support", "support-reviewed"):
            kubectl.apply({**raw, "spec": {**raw["spec"], **rest[raw["kind"]]}})
    commands = [block for page in HOW_TOS for block in page.blocks("sh", "try")]
    assert len(commands) >= 5
    plain = f'kubectl() {{ command kubectl --namespace {kubectl.namespace} "$@"; }}\n'
    for command in commands:
        subprocess.run(["bash", "-euc", plain + command], check=True, cwd=tmp_path, timeout=60)
    adapters = kubectl.get("adapterdeployment", "support")["spec"]["adapters"]
    assert "canary" not in adapters
    assert not adapters.get("pins")
