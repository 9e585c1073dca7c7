"""``init``'s questions: what the flags do not say is asked on a terminal."""

from __future__ import annotations

from typing import Any

import click

from tunesmith.api.method import Method
from tunesmith.commandline.init import METHODS, Choices, Source

#: flag → what is asked, and the answer of whoever just presses enter.
NEEDED = {
    "name": ("Name of the job and of its adapter", None),
    "base_model": ("Base model, such as hf://meta-llama/Llama-3.1-8B-Instruct", None),
    "dataset": ("Examples, such as pvc://support-data/tickets.jsonl", None),
    "output": ("Where the adapter goes", "pvc://adapters"),
}
DEFAULTS = {"method": "Auto", "gpus": 1, "review": False}


def choices(flags: dict[str, Any], *, is_terminal: bool) -> Choices:
    """What the flags say, and what is answered. Raises click.UsageError where nobody can answer."""
    said = _asked(flags) if is_terminal else _defaulted(flags)
    base_model, dataset, output = (
        Source(said[each], said.get(f"{each}_secret"), said.get(f"{each}_digest"))
        for each in ("base_model", "dataset", "output")
    )
    return Choices(
        said["name"],
        base_model,
        dataset,
        output,
        method=Method(said["method"]),
        gpus=said["gpus"],
        memory=said["memory"],
        gpu_memory=said["gpu_memory"],
        review=said["review"],
        serve=said["serve"],
    )


def _defaulted(flags: dict[str, Any]) -> dict[str, Any]:
    missing = [f"--{each.replace('_', '-')}" for each in NEEDED if flags[each] is None]
    if missing:
        raise click.UsageError(f"nobody can be asked here: give {', '.join(missing)}")
    return _with_defaults(flags)


def _with_defaults(flags: dict[str, Any]) -> dict[str, Any]:
    return {**flags, **{key: value for key, value in DEFAULTS.items() if flags[key] is None}}


def _asked(flags: dict[str, Any]) -> dict[str, Any]:
    """Only what is necessary; the rest too where somebody is being asked anyway."""
    said = dict(flags)
    was_asked = False
    for key, (question, default) in NEEDED.items():
        if said[key] is None:
            said[key], was_asked = click.prompt(question, default=default, type=str), True
    if not was_asked:
        return _with_defaults(said)
    if said["method"] is None:
        for method, meaning in METHODS.items():
            click.echo(f"  {method}: {meaning}")
        kinds = click.Choice([str(each) for each in Method])
        said["method"] = click.prompt("Method", default="Auto", type=kinds, show_choices=False)
    if said["gpus"] is None:
        said["gpus"] = click.prompt("GPUs per training pod", default=1, type=click.IntRange(0, 16))
    if said["review"] is None:
        said["review"] = click.confirm("Must a person approve the data before training?")
    if said["serve"] is None and click.confirm("Serve it, if it passes?", default=True):
        said["serve"] = click.prompt("Name of the AdapterDeployment", default=said["name"])
    return said
