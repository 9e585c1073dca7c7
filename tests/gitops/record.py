"""Writes down every state that objects go through on a real cluster: `make gitops-statuses`.

Watches a namespace while the scenes play in it, or with ``--watch-only`` while something else
does: the first status of each state is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from threading import Thread

from examples.demo.chain import create_namespace
from examples.demo.kubectl import Object
from tests.cluster.manifests import claim
from tests.gitops import recorded, scenes

KINDS = ("finetunejobs", "evalruns", "adapterdeployments")


class Recorder:
    """Watches the three kinds; what it saw first of each state stays."""

    def __init__(self, namespace: str) -> None:
        self.seen: set[str] = set()
        self._watches = [_watch(kind, namespace) for kind in KINDS]
        for each in self._watches:
            Thread(target=self._follow, args=(each,)).start()

    def stop(self) -> None:
        for each in self._watches:
            each.terminate()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._see(json.loads(line))

    def _see(self, raw: Object) -> None:
        if "state" not in raw.get("status", {}) or recorded.scene(raw) in self.seen:
            return
        self.seen.add(recorded.scene(raw))
        recorded.keep(raw)
        print(recorded.scene(raw), flush=True)


def _watch(kind: str, namespace: str) -> subprocess.Popen[str]:
    """A JSON object a line, as JSONPath prints it."""
    return subprocess.Popen(
        ["kubectl", "-n", namespace, "get", kind, "--watch", "-o", r"jsonpath={@}{'\n'}"],
        stdout=subprocess.PIPE,
        text=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--namespace", default="gitops-statuses")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--watch-only", action="store_true")
    arguments = parser.parse_args()
    kubectl = create_namespace(arguments.namespace)
    recorder = Recorder(arguments.namespace)
    if not arguments.watch_only:
        for name in scenes.CLAIMS:
            kubectl.apply(claim(name))
        for each in scenes.all_of_them():
            kubectl.apply(each)
    time.sleep(arguments.seconds)
    recorder.stop()
    if not arguments.watch_only:
        kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false")


if __name__ == "__main__":
    main()
