"""The words of ``kubectl tunesmith`` and their options. What they do is imported when it is asked.

kubectl finds a plugin by its file's name, so the package installs this as ``kubectl-tunesmith``.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import IO, Any

import click

from tunesmith import __version__
from tunesmith.commandline import options
from tunesmith.commandline.completion import names
from tunesmith.commandline.connection import Place
from tunesmith.commandline.layout import as_json
from tunesmith.commandline.outcome import ExitCode, Refusal

WATCH_SECONDS = 2.0
PAGES = ("training", "review", "evaluation")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="kubectl tunesmith")
def main() -> None:
    """Fine-tune, look, decide and ask, in the words of Tunesmith's API.

    \b
    Exit codes:
      0  done
      1  the answer is no: refused, does not fit, not found, nothing to approve, not comparable
      2  the command line is wrong
      3  the cluster, or what runs in it, does not answer
    """


@main.command()
@options.choices
@click.option("-f", "--file", default="finetune.yaml", type=click.Path(dir_okay=False),
              help="Where to write; - prints it. Default: finetune.yaml.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace the file.")
def init(file: str, force: bool, **flags: Any) -> None:
    """Write a finetune.yaml that explains itself.

    On a terminal, what the flags do not say is asked.
    """
    from tunesmith.commandline import asking, init

    path = None if file == "-" else Path(file)
    if path and path.exists() and not force:
        raise Refusal(f"{path} is there already: name another file with -f, or use --force")
    choices = asking.choices(flags, is_terminal=sys.stdin.isatty())
    if wrong := list(init.mistakes(choices)):
        raise click.UsageError("\n".join(wrong))
    text = init.finetune_yaml(choices)
    if path is None:
        click.echo(text, nl=False)
        return
    path.write_text(text)
    click.echo(f"wrote {path}; next: kubectl tunesmith plan -f {path}")


@main.command()
@click.option("-f", "--file", required=True, type=click.File(), help="A finetune.yaml; - reads it.")
@click.option("--model-shape", help="A config.json, or a known model such as Llama-3.1-8B.")
@click.option("--gpu-memory", help="Of one GPU, where the file does not say; such as 80Gi.")
@click.option("--offline", is_flag=True, help="Ask no cluster.")
@options.in_cluster
@options.as_output
def plan(
    file: IO[str],
    model_shape: str | None,
    gpu_memory: str | None,
    offline: bool,
    output: str | None,
    **place: Any,
) -> None:
    """What would come of a file: memory plan and admission.

    Nothing is created. Exit code 1 when something would be refused, or cannot fit.
    """
    from tunesmith.commandline import plan

    documents = plan.documents(file.read())
    ask = plan.admission(None if offline else Place(**place))
    found = [plan.planned(each, ask(each), model_shape, gpu_memory) for each in documents]
    if output:
        click.echo(as_json([each.to_json() for each in found]))
    else:
        click.echo("\n".join(plan.lines(found)))
    if not all(each.is_good for each in found):
        sys.exit(ExitCode.NO)


@main.command()
@click.argument("name", required=False, shell_complete=names("FineTuneJob"))
@click.option("-w", "--watch", is_flag=True, help="Again whenever something changed.")
@options.in_cluster
@options.as_output
def status(name: str | None, watch: bool, output: str | None, **place: Any) -> None:
    """How it is, what to do, and where it is served.

    NAME is a FineTuneJob's, else an EvalRun's, else an AdapterDeployment's; KIND/NAME says which.
    Without NAME: everything in the namespace. --watch ends when nothing follows.
    """
    from tunesmith.commandline import status

    connection, shown = Place(**place).connect(), ""
    while True:
        objects = status.look(connection, name)
        text = as_json(objects if name is None else objects[0]) if output else (
            "\n".join(status.told(connection, objects, alone=name is not None))
        )  # fmt: skip
        if text != shown:
            click.echo(text if not shown or output else f"\n{text}")
            shown = text
        if not watch or all(status.is_finished(each) for each in objects):
            return
        time.sleep(WATCH_SECONDS)


@main.command()
@options.job_name
@click.option("-f", "--follow", is_flag=True, help="Go on until the pod ends.")
@click.option("--tail", type=click.IntRange(0), help="Only the last lines.")
@click.option(
    "--stage", type=click.Choice(["prepare", "train", "evaluate"]), help="Not the current."
)
@options.in_cluster
def logs(name: str, follow: bool, tail: int | None, stage: str | None, **place: Any) -> None:
    """Print the log of the pod that works now. NAME as for status."""
    from tunesmith.commandline.logs import Stage, printed
    from tunesmith.commandline.target import target

    connection = Place(**place).connect()
    wanted = Stage(stage) if stage else None
    pod, content = printed(connection, target(connection, name), wanted, tail, follow=follow)
    click.echo(f"pod {pod}", err=True)
    for piece in content:
        click.echo(piece, nl=False)


@main.command()
@options.job_name
@options.in_cluster
@options.as_output
def approve(name: str, output: str | None, **place: Any) -> None:
    """Approve the data of a job, in your own name.

    Exactly the data that status shows, and only of a job that waits for it.
    """
    from tunesmith.api.finetunejob import FineTuneJob
    from tunesmith.commandline import approve

    connection = Place(**place).connect()
    job = FineTuneJob.from_object(connection.get("FineTuneJob", name))
    me = connection.who_am_i()
    annotations = approve.approval(job, me)
    connection.annotate("FineTuneJob", name, annotations)
    click.echo(as_json(annotations) if output else approve.sentence(job, me))


@main.command()
@options.job_name
@click.option("--page", type=click.Choice(PAGES), default=PAGES[0], show_default=True)
@click.option("-f", "--file", type=click.Path(dir_okay=False), help="Default: NAME-PAGE.html.")
@click.option("--open", "open_", is_flag=True, help="Show it in the browser, too.")
@click.option("--image", help="The trainer image, where no Job is left that says it.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds until the pod must run.")
@options.in_cluster
def report(
    name: str,
    page: str,
    file: str | None,
    open_: bool,
    image: str | None,
    timeout: float,
    **place: Any,
) -> None:
    """Save a report as a file.

    Of a job its training, the examples (review) or what judged it (evaluation); or of an EvalRun.
    A short-lived pod of the trainer image reads it from where it lies, and is removed.
    """
    from tunesmith.commandline import report

    connection = Place(**place).connect()
    content = report.fetched(connection, name, report.Page(page), image, timeout)
    path = Path(file or f"{name.rpartition('/')[2]}-{page}.html")
    path.write_bytes(content)
    click.echo(f"wrote {path} ({len(content):,} bytes)")
    if open_:
        click.launch(str(path))


@main.command()
@click.argument("first", shell_complete=names("EvalRun"))
@click.argument("second", shell_complete=names("EvalRun"))
@options.in_cluster
@options.as_output
def compare(first: str, second: str, output: str | None, **place: Any) -> None:
    """Set two EvalRuns side by side.

    For each suite both numbers, their difference, the verdicts, and whether they asked the same.

    Exit code 1 when some suite cannot be compared.
    """
    from tunesmith.api.evalrun import EvalRun
    from tunesmith.commandline import compare

    connection = Place(**place).connect()
    one, other = (EvalRun.from_object(connection.get("EvalRun", it)) for it in (first, second))
    found = compare.compare(one, other)
    if output:
        click.echo(as_json([each.to_json() for each in found]))
    else:
        click.echo("\n".join(compare.lines(one, other, found)))
    if any(each.reasons for each in found):
        sys.exit(ExitCode.NO)


@main.command()
@click.argument("model", metavar="DEPLOYMENT[/ADAPTER]", shell_complete=names("AdapterDeployment"))
@click.option("-m", "--message", help="Ask this and end; default: what is typed, or piped in.")
@click.option("--system", help="A system prompt.")
@click.option("--max-tokens", default=512, show_default=True, type=click.IntRange(1))
@click.option("--key-secret", metavar="SECRET/KEY", help="Where your API key is; default: the "
              "environment variable TUNESMITH_API_KEY.")  # fmt: skip
@options.in_cluster
@options.as_output
def chat(
    model: str,
    message: str | None,
    system: str | None,
    max_tokens: int,
    key_secret: str | None,
    output: str | None,
    **place: Any,
) -> None:
    """Ask an adapter, or its base model.

    ADAPTER@VERSION is one version of it; without ADAPTER the base model answers.
    """
    from tunesmith.api.adapterdeployment import AdapterDeployment
    from tunesmith.commandline import chat

    connection = Place(**place).connect()
    deployment_name, _, adapter = model.partition("/")
    raw = connection.get("AdapterDeployment", deployment_name)
    deployment = AdapterDeployment.from_object(raw)
    given = os.environ.get(chat.KEY_VARIABLE)
    talk = chat.Talk(
        connection,
        pod=chat.serving_pod(connection, deployment),
        model=chat.model_of(deployment, adapter or None),
        key=chat.key_of(connection, deployment, key_secret, given),
        max_tokens=max_tokens,
        system=system,
    )
    if message is None and sys.stdin.isatty() and not output:
        while question := click.prompt(
            talk.model, prompt_suffix="> ", default="", show_default=False
        ):
            _say(talk.ask(question))
        return
    question = message if message is not None else sys.stdin.read()
    if output:
        text = "".join(talk.ask(question))
        click.echo(as_json({"model": talk.model, "question": question, "answer": text}))
    else:
        _say(talk.ask(question))


def _say(pieces: Any) -> None:
    for piece in pieces:
        click.echo(piece, nl=False)
    click.echo()


def run() -> None:
    """The executable kubectl-tunesmith, by the name under which people call it."""
    main(prog_name="kubectl tunesmith")
