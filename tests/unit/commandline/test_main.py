"""The command line as a whole: quick, complete, and the same for kubectl and for a shell."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tunesmith.commandline.completion import answer
from tunesmith.commandline.main import main

from tests.unit.commandline.asked import run

WORDS = ["approve", "chat", "compare", "init", "logs", "plan", "report", "status"]
#: Those that take a second to load, and that --help and completion do without.
HEAVY = ("kubernetes", "pydantic", "yaml")


#: What the operator needs and a user's machine does not.
OPERATORS = (
    "kopf", "aiohttp", "uvloop", "orjson", "prometheus_client", "pythonjsonlogger", "numpy",
    "safetensors",
)  # fmt: skip


def loaded(modules: str, among: tuple[str, ...]) -> str:
    """Which of the packages come along with the modules."""
    program = (
        f"import sys; from tunesmith.commandline import {modules}; "
        f"print([name for name in {among} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_help_and_completion_load_nothing_heavy() -> None:
    assert loaded("main, completion", HEAVY) == "[]"


def test_a_users_machine_needs_nothing_of_the_operators() -> None:
    assert loaded(f"asking, {', '.join(WORDS)}", OPERATORS) == "[]"


def test_every_word_says_what_it_is_for() -> None:
    assert sorted(main.commands) == WORDS
    for word in WORDS:
        told = run(word, "--help")
        assert told.exit_code == 0
        assert "Usage" in told.output


def test_a_wrong_command_line_ends_with_2() -> None:
    assert run("status", "--colour").exit_code == 2
    assert run("approve").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("status", "triage"),
        ("logs", "triage"),
        ("approve", "triage"),
        ("report", "triage"),
        ("compare", "one", "two"),
        ("chat", "support"),
    ],
)
def test_without_a_cluster_everything_that_needs_one_ends_with_3(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.exit_code == 3
    assert "no cluster is known" in done.output


def test_kubectl_is_told_words_flags_and_values() -> None:
    assert [line.split("\t")[0] for line in answer(main, [""])] == [*WORDS, ":4"]
    assert "--follow\tGo on until the pod ends." in answer(main, ["logs", "--f"])
    assert answer(main, ["report", "x", "--page", "re"]) == ["review", ":4"]


def test_kubectl_completes_files_itself() -> None:
    assert answer(main, ["init", "--file", ""]) == [":0"]
