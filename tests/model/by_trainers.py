"""What the Job controller, Kueue and the kubelet do with batch Jobs, and how their pods end."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.model.api_server import Object, owner_uid
from tests.model.choices import SUCCESSES
from tests.model.history import WHICH, History, named, one
from tests.model.trainer import Ending, Success
from tests.model.workloads import RUNS


class ByTrainers(History):
    """Jobs make pods, pods end."""

    @precondition(lambda self: self.has("Job"))
    @rule(which=WHICH)
    def job_controller(self, which: int) -> None:
        if jobs := self.world.workloads.jobs():
            self.world.workloads.sync(one(jobs, which))

    @precondition(lambda self: self.has("Job"))
    @rule(which=WHICH)
    def deadline(self, which: int) -> None:
        if jobs := self.world.workloads.jobs():
            self.world.workloads.deadline(one(jobs, which))

    @precondition(lambda self: self.has("Job"))
    @rule(which=WHICH, admitted=st.booleans())
    def kueue(self, which: int, admitted: bool) -> None:
        if jobs := self.world.workloads.jobs():
            self.world.workloads.admit(one(jobs, which), admitted=admitted)

    @precondition(lambda self: self.has("Pod"))
    @rule(which=WHICH)
    def pod_runs(self, which: int) -> None:
        if pods := self.world.workloads.pods("Pending"):
            self.world.workloads.run(one(pods, which))

    @precondition(lambda self: self.has("Pod"))
    @rule(which=WHICH)
    def pod_cannot_run(self, which: int) -> None:
        if pods := self.world.workloads.pods("Pending"):
            self.world.workloads.cannot_run(one(pods, which))

    @precondition(lambda self: self.has("Job"))
    @rule(which=WHICH, how=SUCCESSES, noticed=st.booleans())
    def pod_succeeds(self, which: int, how: Success, noticed: bool) -> None:
        if pod := self._running_pod(which):
            self.world.workloads.succeed(pod, how)
            self._job_controller(pod, noticed=noticed)

    @precondition(lambda self: self.has("Job"))
    @rule(which=WHICH, ending=st.sampled_from(Ending), noticed=st.booleans())
    def pod_fails(self, which: int, ending: Ending, noticed: bool) -> None:
        if pod := self._running_pod(which):
            self.world.workloads.fail(pod, ending)
            self._job_controller(pod, noticed=noticed)

    @precondition(lambda self: self.has("Job"))
    @rule(which=WHICH, noticed=st.booleans())
    def pod_is_evicted(self, which: int, noticed: bool) -> None:
        if pod := self._running_pod(which):
            self.world.workloads.evict(pod)
            self._job_controller(pod, noticed=noticed)

    def _running_pod(self, which: int) -> Object | None:
        """Of a Job that may have one: made and run by now."""
        found = [each for each in self.world.workloads.jobs() if not each["spec"].get("suspend")]
        if not found:
            return None
        self.world.workloads.sync(one(found, which))
        pods = self.world.workloads.pods("Pending", RUNS)
        mine = [each for each in pods if owner_uid(each) == one(found, which)["metadata"]["uid"]]
        if not mine:
            return None
        self.world.workloads.run(one(mine, which))
        return self.world.server.now.get(*named(one(mine, which)))

    def _job_controller(self, pod: Object, *, noticed: bool) -> None:
        job = self.world.workloads.job_of(pod)
        if job and noticed:
            self.world.workloads.sync(job)

    @precondition(lambda self: self.has("Pod"))
    @rule(which=WHICH)
    def pod_vanishes(self, which: int) -> None:
        if pods := self.world.workloads.pods():
            self.world.workloads.vanish(one(pods, which))

    @rule()
    def garbage_collector(self) -> None:
        self.world.collect_garbage()
