"""What the shell offers: names of objects, and kubectl's own way to ask a plugin for them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum

import click
from click.shell_completion import CompletionItem, ShellComplete

from tunesmith.commandline.connection import Place


class Directive(IntEnum):
    """The last line of an answer, as kubectl's library for completion (cobra) reads it."""

    FILES = 0
    NO_FILES = 4


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names(kind: str) -> Completer:
    """Offers the objects of a kind. Whatever goes wrong, a shell wants no error text."""

    def offered(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
        place = Place(
            *(context.params.get(each) for each in ("namespace", "context", "kubeconfig"))
        )
        try:
            found = [each["metadata"]["name"] for each in place.connect().list(kind)]
        except click.ClickException:
            return []
        return [CompletionItem(name) for name in found if name.startswith(begun)]

    return offered


def answer(command: click.Command, words: list[str]) -> list[str]:
    """What kubectl reads: an offer a line, and a directive. The last word is being typed."""
    *before, begun = words or [""]
    offers = ShellComplete(command, {}, "kubectl tunesmith", "").get_completions(before, begun)
    files = any(each.type in ("file", "dir") for each in offers)
    plain = [each for each in offers if each.type == "plain"]
    told = [f"{each.value}\t{each.help}" if each.help else str(each.value) for each in plain]
    return [*told, f":{Directive.FILES if files else Directive.NO_FILES:d}"]


def main() -> None:
    """The executable kubectl_complete-tunesmith."""
    from tunesmith.commandline.main import main as command

    print("\n".join(answer(command, sys.argv[1:])))
