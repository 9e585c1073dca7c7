"""Writes down every state that objects go through on a real cluster: `make gitops-statuses`.

Plays the scenes in a namespace of its own and keeps the first status of each state; with
``--watch-only`` it plays nothing, and adds what others do anywhere in the cluster.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from threading import Thread

from examples.demo.chain import create_namespace
from examples.demo.kubectl import Kubectl, Object
from tests.cluster.manifests import claim
from tests.gitops import recorded, scenes

NAMESPACE = "gitops-statuses"
KINDS = ("finetunejobs", "evalruns", "adapterdeployments")


class Recorder:
    """Watches the three kinds in all namespaces; what it saw first of each state stays."""

    def __init__(self, known: set[str]) -> None:
        self._seen = known
        self._watches = [_watch(kind) for kind in KINDS]
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
        if "state" not in raw.get("status", {}) or recorded.scene(raw) in self._seen:
            return
        self._seen.add(recorded.scene(raw))
        recorded.keep(raw)
        print(recorded.scene(raw), flush=True)


def _watch(kind: str) -> subprocess.Popen[str]:
    """Prints an object a line, as JSONPath writes JSON."""
    return subprocess.Popen(
        ["kubectl", "get", kind, "--all-namespaces", "--watch", "-o", r"jsonpath={@}{'\n'}"],
        stdout=subprocess.PIPE,
        text=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--watch-only", action="store_true")
    arguments = parser.parse_args()
    known = {recorded.scene(each) for each in recorded.recorded()}
    recorder = Recorder(known if arguments.watch_only else set())
    kubectl = None if arguments.watch_only else play()
    time.sleep(arguments.seconds)
    recorder.stop()
    if kubectl:
        kubectl.run("delete", "namespace", kubectl.namespace, "--wait=false")


def play() -> Kubectl:
    kubectl = create_namespace(NAMESPACE)
    for name in scenes.CLAIMS:
        kubectl.apply(claim(name))
    for each in scenes.all_of_them():
        kubectl.apply(each)
    return kubectl


if __name__ == "__main__":
    main()
