"""docs/quick-start.md as a user walks it: its own commands, step by step, with a clock.

    python -m tests.e2e.quick_start

on a cluster of `make cluster` with the images of `make images`; writes build/bench/new-user.json.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from examples.demo.chain import MODEL_NAME, ROOT, cache_folder
from tests.unit.docs.pages import page

STEP = re.compile(r"^```sh step (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: The images of the development cluster instead of a registry's.
VALUES = ROOT / "devcluster" / "chart-values.yaml"
TRAINER_IMAGE = "tunesmith.dev/trainer:dev"
#: What runs in the background ends with its step.
PREAMBLE = "set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n"
LONGEST_SECONDS = 2400


def steps() -> dict[str, str]:
    """The commands of each step, in the order of the page."""
    return dict(STEP.findall(page("quick-start.md").text))


@dataclass
class Walk:
    """A checkout in which the commands are run, with what a user brings along."""

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("charts", "examples"):
            (self.folder / name).symlink_to(ROOT / name)
        shutil.copy(VALUES, self.folder / "my-values.yaml")
        # Its context is changed on the way, which is nobody else's business.
        shutil.copy(os.environ["KUBECONFIG"], self.folder / "kubeconfig")
        kept = cache_folder() / MODEL_NAME
        if kept.is_dir():
            shutil.copytree(kept, self.folder / "library" / "models" / MODEL_NAME)

    def take(self, *names: str) -> str:
        """What the commands of these steps print. Raises CalledProcessError if one fails."""
        return "".join(self._take(name) for name in names)

    def _take(self, name: str) -> str:
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", PREAMBLE + steps()[name]],
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            timeout=LONGEST_SECONDS,
            text=True,
            check=True,
        )
        self.seconds[name] = time.monotonic() - began
        return done.stdout

    def _environment(self) -> dict[str, str]:
        python = ROOT / "build" / "venvs" / "ml" / "bin"
        return {
            **os.environ,
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "PATH": f"{python}:{os.environ['PATH']}",
            "TRAINER_IMAGE": TRAINER_IMAGE,
            "TQDM_DISABLE": "1",
        }


def answer_of(printed: str) -> dict[str, Any]:
    """What the last step's request was answered with."""
    return dict(json.loads(printed))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        walk = Walk(Path(folder))
        for name in steps():
            printed = walk.take(name)
            print(f"{name:>8}: {walk.seconds[name]:6.1f} s", flush=True)
        answer = answer_of(printed)
    print(f"{answer['model']} answers: {answer['choices'][0]['message']['content']}")
    installed = [name for name in walk.seconds if name != "inputs"]
    total = sum(walk.seconds[name] for name in installed)
    print(f"from helm install to this answer: {total:.0f} s")
    found = {
        "seconds": walk.seconds,
        "total": total,
        "cores": os.cpu_count(),
        "machine": platform.platform(),
        "date": datetime.now(UTC).date().isoformat(),
    }
    target = ROOT / "build" / "bench" / "new-user.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
