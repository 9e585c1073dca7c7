"""The Job controller, the kubelet and Kueue, as far as the operator sees what they do."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.kube.labels import QUEUE_NAME, STAGE
from tunesmith.kube.observed_attempt import INDEX, is_finished

from tests.model.api_server import NAMESPACE, ApiServer, Object, owner_uid
from tests.model.trainer import Ending, Fault, Success, plan_of, succeed
from tests.model.truth import Truth

RUNS = "Running"


@dataclass
class Workloads:
    """Batch Jobs and their pods."""

    server: ApiServer
    truth: Truth
    _pods: int = 0

    # --- what there is ---------------------------------------------------------------------------

    def jobs(self) -> list[Object]:
        """Those that are not finished."""
        return [each for each in self.server.now.list("Job") if not is_finished(each)]

    def pods(self, *phases: str) -> list[Object]:
        """Trainers' pods that are in one of these phases, or in any."""
        return [
            each
            for each in self.server.now.list("Pod")
            if "batch.kubernetes.io/controller-uid" in each["metadata"]["labels"]
            and (not phases or each["status"]["phase"] in phases)
        ]

    # --- the Job controller ----------------------------------------------------------------------

    def sync(self, job: Object) -> None:
        """One look of the Job controller at one Job."""
        name, own = job["metadata"]["name"], self._pods_of(job)
        if "deletionTimestamp" in job["metadata"]:
            self._remove(own)
            self.server.remove("Job", name)
        elif job["spec"].get("suspend"):
            self._remove([each for each in own if not _has_ended(each)])
            self._suspended(name, "True")
        else:
            self._start(job)
            self._work(job, own)

    def _work(self, job: Object, own: list[Object]) -> None:
        wanted = job["spec"].get("completions") or 1
        failed = [each for each in own if each["status"]["phase"] == "Failed"]
        done = {_index(each) for each in own if each["status"]["phase"] == "Succeeded"}
        if fatal := [each for each in failed if wanted > 1 or not _is_disrupted(each)]:
            reason = "PodFailurePolicy" if _is_disrupted(fatal[0]) else "BackoffLimitExceeded"
            self._finish(job, "Failed", reason)
        elif len(done) == wanted:
            self._finish(job, "Complete", "CompletionsReached")
        else:
            there = {_index(each) for each in own if each not in failed}
            for index in sorted(set(range(wanted)) - there):
                self._make_pod(job, index)

    def _start(self, job: Object) -> None:
        with self.server.change("Job", job["metadata"]["name"]) as found:
            found.setdefault("status", {}).setdefault("startTime", self.server.clock.stamp())
        self._suspended(job["metadata"]["name"], "False")

    def _suspended(self, name: str, status: str) -> None:
        """A Job that was never suspended has no such condition."""
        with self.server.change("Job", name) as found:
            state = found.setdefault("status", {})
            conditions = state.setdefault("conditions", [])
            if status == "False" and not conditions:
                return
            if conditions and conditions[0]["status"] == status:
                return
            conditions[:] = [self._condition("Suspended", status, "JobSuspended")]
            if status == "True":
                state.pop("startTime", None)
            else:
                state["startTime"] = self.server.clock.stamp()

    def _finish(self, job: Object, type_: str, reason: str) -> None:
        with self.server.change("Job", job["metadata"]["name"]) as found:
            conditions = found["status"].setdefault("conditions", [])
            conditions.append(self._condition(type_, "True", reason))
        self._remove([each for each in self._pods_of(job) if not _has_ended(each)])

    def _condition(self, type_: str, status: str, reason: str) -> Object:
        stamp = self.server.clock.stamp()
        return {"type": type_, "status": status, "reason": reason, "lastTransitionTime": stamp}

    def _make_pod(self, job: Object, index: int) -> None:
        """A second later than the one before, so that it is known which is the newer one."""
        self.server.clock.tick()
        self._pods += 1
        metadata, template = job["metadata"], job["spec"]["template"]
        labels = {
            **template["metadata"]["labels"],
            "batch.kubernetes.io/controller-uid": metadata["uid"],
            "batch.kubernetes.io/job-name": metadata["name"],
        }
        annotations = {**template["metadata"].get("annotations", {}), INDEX: str(index)}
        self.server.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{metadata['name']}-{index}-{self._pods}",
                    "namespace": NAMESPACE,
                    "labels": labels,
                    "annotations": annotations,
                    "ownerReferences": [
                        {
                            "kind": "Job",
                            "name": metadata["name"],
                            "uid": metadata["uid"],
                            "controller": True,
                        }
                    ],
                },
                "spec": template["spec"],
                "status": {"phase": "Pending"},
            }
        )

    def deadline(self, job: Object) -> None:
        """The Job ran longer than it may."""
        self._count(job)
        self._start(job)
        self._finish(job, "Failed", "DeadlineExceeded")

    # --- Kueue -----------------------------------------------------------------------------------

    def admit(self, job: Object, *, admitted: bool = True) -> None:
        """Let a queued Job go, or take its quota back. Kueue touches no Job without a queue."""
        if QUEUE_NAME in job["metadata"]["labels"]:
            with self.server.change("Job", job["metadata"]["name"]) as found:
                found["spec"]["suspend"] = not admitted

    # --- the kubelet -----------------------------------------------------------------------------

    def run(self, pod: Object) -> None:
        """A pod whose plan is not there does not start."""
        if pod["status"]["phase"] == RUNS or plan_of(self.server.now, pod) is None:
            return
        self._pods += 1
        self._set_status(
            pod,
            {
                "phase": RUNS,
                "podIP": f"10.1.0.{self._pods}",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [
                    {"name": "main", "state": {"running": {"startedAt": self.server.clock.stamp()}}}
                ],
            },
        )

    def cannot_run(self, pod: Object) -> None:
        message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
        condition = {"type": "PodScheduled", "status": "False", "message": message}
        self._set_status(pod, {"phase": "Pending", "conditions": [condition]})

    def succeed(self, pod: Object, how: Success) -> None:
        plan, job = plan_of(self.server.now, pod), self.job_of(pod)
        if plan is None or job is None:
            return
        message = succeed(plan, owner_uid(job), how, self.truth)
        self._end(pod, "Succeeded", 0, "Completed", message.to_line())

    def fail(self, pod: Object, ending: Ending) -> None:
        fault: Fault = ending.value
        job = self.job_of(pod)
        if job and fault.counts:
            self._count(job)
        if job and ending is Ending.DATA_CHANGED:
            self.truth.changes[owner_uid(job)] += 1
        self._end(pod, "Failed", fault.exit_code, fault.kubelet, fault.words())

    def evict(self, pod: Object) -> None:
        """A drain, a lost node, a pod of higher priority."""
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
        }
        self._end(pod, "Failed", 143, "Error", "", [condition])

    def vanish(self, pod: Object) -> None:
        """Deleted by hand, or by a cleaner: nobody reads its last word any more. A Job whose
        pod went before it ended has failed."""
        job = self.job_of(pod)
        self.server.remove("Pod", pod["metadata"]["name"])
        if job and not _has_ended(pod) and not is_finished(job):
            self._start(job)
            self._finish(job, "Failed", "BackoffLimitExceeded")

    def _end(
        self,
        pod: Object,
        phase: str,
        code: int,
        reason: str,
        message: str,
        conditions: list[Object] | None = None,
    ) -> None:
        stamp = self.server.clock.stamp()
        states = pod["status"].get("containerStatuses", [{"state": {}}])
        started = states[0]["state"].get("running", {}).get("startedAt", stamp)
        ended = {
            "exitCode": code,
            "reason": reason,
            "message": message,
            "startedAt": started,
            "finishedAt": stamp,
        }
        container = {"name": "main", "state": {"terminated": ended}}
        status = {"phase": phase, "containerStatuses": [container]}
        self._set_status(pod, {**status, "conditions": conditions or []})

    def _set_status(self, pod: Object, status: Object) -> None:
        with self.server.change("Pod", pod["metadata"]["name"]) as found:
            found["status"] = status

    def _count(self, job: Object) -> None:
        stage = str(job["metadata"]["labels"].get(STAGE, ""))
        self.truth.failures[owner_uid(job), stage].add(str(job["metadata"]["uid"]))

    def _pods_of(self, job: Object) -> list[Object]:
        return [each for each in self.pods() if owner_uid(each) == job["metadata"]["uid"]]

    def job_of(self, pod: Object) -> Object | None:
        name = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        job = self.server.now.get("Job", name)
        return job if job and job["metadata"]["uid"] == owner_uid(pod) else None

    def _remove(self, pods: list[Object]) -> None:
        for each in pods:
            self.server.remove("Pod", each["metadata"]["name"])


def _index(pod: Object) -> int:
    return int(pod["metadata"]["annotations"][INDEX])


def _has_ended(pod: Object) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def _is_disrupted(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "DisruptionTarget" for each in conditions)
