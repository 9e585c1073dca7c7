"""Options that several commands have, and those of ``init``, which are many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from tunesmith.commandline.completion import names

Command = Callable[..., Any]

IN_CLUSTER = (
    click.option("-n", "--namespace", help="Default: that of the context."),
    click.option("--context", help="A context of the kubeconfig; default: the current."),
    click.option("--kubeconfig", help="Default: KUBECONFIG, else ~/.kube/config."),
)

METHODS = click.Choice(["Auto", "LoRA", "QLoRA", "DoRA", "QDoRA", "Full"])
CHOICES = (
    click.option("--name", help="Of the job, and of the served adapter."),
    click.option("--base-model", help="hf://ORGANISATION/NAME, pvc://, s3:// or https://."),
    click.option("--base-model-secret", help="The Secret that opens it."),
    click.option("--base-model-digest", help="What must be found there."),
    click.option("--dataset", help="pvc://CLAIM/PATH, configmap://, s3://, hf:// or https://."),
    click.option("--dataset-secret", help="The Secret that opens it."),
    click.option("--dataset-digest", help="What must be found there."),
    click.option("--output", help="pvc://CLAIM[/FOLDER] or s3://BUCKET[/FOLDER]."),
    click.option("--output-secret", help="The Secret that opens it."),
    click.option("--method", type=METHODS, help="Default: Auto."),
    click.option("--gpus", type=click.IntRange(0, 16), help="Per training pod; default: 1."),
    click.option("--memory", help="Of each pod, such as 64Gi."),
    click.option("--gpu-memory", help="Of one GPU, such as 80Gi."),
    click.option("--review/--no-review", default=None, help="A person approves the data first."),
    click.option("--serve", metavar="NAME", help="An AdapterDeployment of this name, too."),
)


def with_all(options: tuple[Command, ...]) -> Command:
    """One decorator of several; the first is listed first."""

    def decorated(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


#: Those that every kubectl command has.
in_cluster = with_all(IN_CLUSTER)
#: What a finetune.yaml says, each as a flag.
choices = with_all(CHOICES)
as_output = click.option(
    "-o", "--output", type=click.Choice(["json"]), help="json: for programs, not for people."
)
job_name = click.argument("name", shell_complete=names("FineTuneJob"))
