"""The quick start is one way, whose steps a test can take."""

from __future__ import annotations

import subprocess

from tests.e2e.quick_start import steps


def test_the_steps_lead_from_installing_to_an_answer() -> None:
    assert list(steps()) == ["inputs", "install", "files", "apply", "wait", "verdict", "ask"]
    assert steps()["install"].startswith("helm upgrade --install tunesmith")
    assert "/v1/chat/completions" in steps()["ask"]


def test_every_step_is_whole_for_a_shell() -> None:
    for commands in steps().values():
        subprocess.run(["bash", "-n", "-c", commands], check=True)
