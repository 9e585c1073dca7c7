"""What the operator does meanwhile: whether it is still the same process, what it logs and asks."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from examples.demo.kubectl import Kubectl
from tests.fuzz.schemas import ROOT

NAMESPACE = "tunesmith-system"
SELECTOR = "app.kubernetes.io/component=operator"
USER = f"system:serviceaccount:{NAMESPACE}:tunesmith-operator"
AUDIT_LOG = ROOT / "build" / "cluster" / "audit.log"
#: The beginning of what Python prints for an exception that nobody expected.
TRACEBACK = re.compile(r"Traceback \(most recent call last\):")


@dataclass
class OperatorWatch:
    """Follows the installed operator's log into a file while the block lasts."""

    kubectl: Kubectl = field(default_factory=lambda: Kubectl(NAMESPACE))

    def __enter__(self) -> OperatorWatch:
        self.identity = self._identity()
        self._file: IO[bytes] = tempfile.NamedTemporaryFile(suffix=".log")
        pod = self.identity[0]
        self._follower = subprocess.Popen(
            ["kubectl", "--namespace", NAMESPACE, "logs", "--follow", "--since=1s", pod],
            stdout=self._file,
            stderr=subprocess.DEVNULL,
        )
        self._audit_start = AUDIT_LOG.stat().st_size
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._follower.terminate()
        self._follower.wait(10)
        self._file.close()

    def _identity(self) -> tuple[str, str, int]:
        """The pod, its container and how often that was started."""
        (pod,) = [
            each
            for each in self.kubectl.list("pods", SELECTOR)
            if "deletionTimestamp" not in each["metadata"]
        ]
        (container,) = pod["status"]["containerStatuses"]
        return pod["metadata"]["name"], container["containerID"], container["restartCount"]

    @property
    def is_the_same_process(self) -> bool:
        return self._identity() == self.identity

    def log(self) -> str:
        return Path(self._file.name).read_text(errors="replace")

    def tracebacks(self) -> list[str]:
        """The log lines that tell of something raised that nobody expected."""
        return [each[:4300] for each in self.log().splitlines() if TRACEBACK.search(each)]

    def requests(self) -> Counter[str]:
        """Requests so far, by verb and resource: the API server's own account of them."""
        counts: Counter[str] = Counter()
        with AUDIT_LOG.open("rb") as lines:
            if AUDIT_LOG.stat().st_size >= self._audit_start:
                lines.seek(self._audit_start)
            for line in lines:
                if USER.encode() not in line:
                    continue
                event = json.loads(line)
                resource = event.get("objectRef", {}).get("resource", "?")
                if resource != "leases" and event["verb"] != "watch":
                    counts[f"{event['verb']} {resource}"] += 1
        return counts
