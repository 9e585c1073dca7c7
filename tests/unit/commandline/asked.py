"""kubectl tunesmith as a user calls it, in this process and without a cluster."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from tunesmith.commandline.main import main

NO_CLUSTER = {"KUBECONFIG": "there-is-no-such-file"}


def run(*words: str, stdin: str = "") -> Result:
    return CliRunner(env=NO_CLUSTER).invoke(main, [str(each) for each in words], input=stdin)


def init(folder: Path, *words: str) -> str:
    """The file that init writes."""
    path = folder / "finetune.yaml"
    done = run("init", "-f", str(path), "--force", *words)
    assert done.exit_code == 0, done.output
    return path.read_text()
