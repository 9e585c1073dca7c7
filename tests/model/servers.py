"""The Deployment controller, and the sidecars of serving pods."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from tunesmith.adapterdeployment.objects import SERVES, config_map_of
from tunesmith.api.serving_contract import (
    DESIRED_FILE,
    AdapterReport,
    AdapterState,
    DesiredState,
    ReplicaReport,
    Traffic,
    state_digest,
)
from tunesmith.kube import pods as readings

from tests.model.api_server import NAMESPACE, ApiServer, Object, owner_uid

TEMPLATE = "pod-template-hash"


@dataclass
class Servers:
    """Serving pods. ``reports`` is what their sidecars answer, by address."""

    server: ApiServer
    reports: dict[str, ReplicaReport] = field(default_factory=dict)
    #: The desired state that each pod was last brought, by the pod's name.
    _files: dict[str, str] = field(default_factory=dict)
    _refused: set[tuple[str, str]] = field(default_factory=set)
    _pods: int = 0

    def pods(self) -> list[Object]:
        found = self.server.now.list("Pod")
        return [each for each in found if SERVES in each["metadata"]["labels"]]

    def deployments(self) -> list[Object]:
        return self.server.now.list("Deployment")

    # --- the Deployment controller ---------------------------------------------------------------

    def roll(self, deployment: Object) -> None:
        """One step: a new pod answers before an old one goes."""
        own = [each for each in self.pods() if owner_uid(each) == deployment["metadata"]["uid"]]
        current = _template_hash(deployment)
        new = [each for each in own if each["metadata"]["labels"][TEMPLATE] == current]
        old = [each for each in own if each not in new]
        wanted = deployment["spec"]["replicas"]
        if len(new) > wanted:
            self._remove(new[-1])
        elif len(new) < wanted and len(own) <= wanted:
            self._make_pod(deployment, current)
        elif old and (len(own) > wanted + 1 or _answering(new) == len(new)):
            self._remove(old[0])

    def _make_pod(self, deployment: Object, current: str) -> None:
        self._pods += 1
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        self.server.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{metadata['name']}-{current}-{self._pods}",
                    "namespace": NAMESPACE,
                    "labels": {**template["metadata"]["labels"], TEMPLATE: current},
                    "annotations": template["metadata"]["annotations"],
                    "ownerReferences": [
                        {
                            "kind": "Deployment",
                            "name": metadata["name"],
                            "uid": metadata["uid"],
                            "controller": True,
                        }
                    ],
                },
                "spec": template["spec"],
                "status": {"phase": "Pending", "podIP": f"10.2.0.{self._pods}"},
            }
        )

    def _remove(self, pod: Object) -> None:
        self.server.remove("Pod", pod["metadata"]["name"])
        self.forget()

    def forget(self) -> None:
        """Pods that are gone answer no more."""
        there = {readings.address(each) for each in self.pods()}
        for address in set(self.reports) - there:
            del self.reports[str(address)]

    # --- kubelet and sidecar ---------------------------------------------------------------------

    def bring_files(self, pod: Object) -> None:
        """The kubelet brings the ConfigMap as it is now, and the sidecar reads it."""
        name = config_map_of({"spec": {"template": {"spec": pod["spec"]}}})
        found = self.server.now.get("ConfigMap", name) if name else None
        if found is None:
            return
        self._files[pod["metadata"]["name"]] = found["data"][DESIRED_FILE]
        self._report(pod, loads=False)

    def load(self, pod: Object) -> None:
        """Everything that is wanted and not refused is loaded and proven, the rest is unloaded."""
        if pod["metadata"]["name"] in self._files:
            self._report(pod, loads=True)
            self._set_ready(pod, "True")

    def refuse(self, pod: Object) -> None:
        """The pre-flight finds fault with the newest adapter that this replica is to load."""
        wanted = self._desired(pod)
        if wanted and wanted.adapters:
            self._refused.add((pod["metadata"]["name"], wanted.adapters[-1].model))
            self._report(pod, loads=False)

    def mend(self) -> None:
        """What was refused can be read again."""
        self._refused.clear()

    def restart(self, pod: Object) -> None:
        """vLLM dies and comes again with nothing proven."""
        address = str(readings.address(pod))
        if before := self.reports.get(address):
            fresh = {"adapters": [], "leaving": [], "serving": False, "traffic": {}}
            self.reports[address] = before.model_copy(update={**fresh, "starts": before.starts + 1})
            self._report(pod, loads=False)
            self._set_ready(pod, "False")

    def fall_silent(self, pod: Object) -> None:
        """The sidecar does not answer; it may again once it has read its files."""
        self.reports.pop(str(readings.address(pod)), None)

    def ask(self, pod: Object, *, errors: bool) -> None:
        """Requests for everything that this replica holds."""
        address = str(readings.address(pod))
        if report := self.reports.get(address):
            counted = {
                each.model: Traffic(requests=100, errors=50 if errors else 0)
                for each in report.adapters
                if each.state is AdapterState.READY
            }
            self.reports[address] = report.model_copy(update={"traffic": counted})

    def _desired(self, pod: Object) -> DesiredState | None:
        text = self._files.get(pod["metadata"]["name"])
        return DesiredState.model_validate_json(text) if text else None

    def _report(self, pod: Object, *, loads: bool) -> None:
        name, address = pod["metadata"]["name"], str(readings.address(pod))
        text, wanted = self._files[name], self._desired(pod)
        assert wanted is not None
        before = self.reports.get(address) or ReplicaReport(desired="", starts=1)
        proven = {each.model for each in before.adapters if each.state is AdapterState.READY}

        def state(model: str) -> AdapterState:
            if (name, model) in self._refused:
                return AdapterState.REFUSED
            return AdapterState.READY if loads or model in proven else AdapterState.LOADING

        adapters = [
            AdapterReport(model=each.model, digest=each.digest, state=state(each.model))
            for each in wanted.adapters
        ]
        left = proven | set(before.leaving)
        leaving = [] if loads else sorted(left - {each.model for each in adapters})
        self.reports[address] = before.model_copy(
            update={
                "desired": state_digest(text),
                "serving": before.serving or loads,
                "base": wanted.base.name,
                "adapters": adapters,
                "leaving": leaving,
            }
        )

    def _set_ready(self, pod: Object, status: str) -> None:
        with self.server.change("Pod", pod["metadata"]["name"]) as found:
            found["status"] |= {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": status}],
            }


def _answering(pods: list[Object]) -> int:
    return len([each for each in pods if readings.is_ready(each)])


def _template_hash(deployment: Object) -> str:
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
