"""How a command ends: the exit codes, and the errors that a user reads as one sentence."""

from __future__ import annotations

from enum import IntEnum

import click


class ExitCode(IntEnum):
    """What a script may rely on. 2 is click's own."""

    DONE = 0
    #: The answer is no: refused, does not fit, not found, nothing to approve, not comparable.
    NO = 1
    USAGE = 2
    #: The cluster, or what runs in it, could not be asked.
    UNREACHABLE = 3


class Refusal(click.ClickException):
    """The answer is no, and the message says why and what to do."""

    exit_code = ExitCode.NO


class Unreachable(click.ClickException):
    """There was no answer."""

    exit_code = ExitCode.UNREACHABLE
