"""A namespace with everybody in it: the users, the operator, the cluster's own controllers."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field

from tunesmith.api.dataset import APPROVED_BY, APPROVED_DATA
from tunesmith.api.evalrun import EvalState
from tunesmith.api.objects import Kind
from tunesmith.kube.policies import Deciding
from tunesmith.kube.reader import KEPT
from tunesmith.kube.reconcile import looks_later

from tests.model import manifests, of_attempts, of_results, of_serving
from tests.model.api_server import ApiServer, Key, Object
from tests.model.connection import NONE, Faults
from tests.model.invariants import BrokenError, When, check_state
from tests.model.played_operator import Operator
from tests.model.servers import Servers
from tests.model.trainer import Success
from tests.model.truth import Truth
from tests.model.workloads import RUNS, Workloads

#: Importing them registers what they check.
INVARIANTS = (of_attempts, of_results, of_serving)

MOST_ROUNDS_TO_REST = 12
#: Enough for a dozen attempts, each with its longest pause before it.
MOST_ROUNDS_TO_END = 40
#: Longer than the longest pause between two attempts.
PATIENCE_SECONDS = 11 * 60


@dataclass
class World:
    """What a history is played on."""

    server: ApiServer = field(default_factory=ApiServer)
    truth: Truth = field(default_factory=Truth)

    def __post_init__(self) -> None:
        self.workloads = Workloads(self.server, self.truth)
        self.servers = Servers(self.server)
        self.operator = Operator(self.server, self.truth, self.servers.reports)

    def close(self) -> None:
        self.operator.loop.close()

    def objects(self, *kinds: Kind) -> list[Object]:
        return [each for kind in kinds or tuple(Kind) for each in self.server.now.list(str(kind))]

    # --- the operator ----------------------------------------------------------------------------

    def reconcile(self, key: Key, faults: Faults = NONE) -> list[str]:
        try:
            written = self.operator.reconcile(key, faults)
            plan = self.operator.plan
            is_enough = faults is NONE and plan is not None and looks_later(plan)
            if is_enough and (more := self.operator.reconcile(key)):
                raise BrokenError("a_look_suffices", f"{key}: {written}, then {more}")
            return written
        except BrokenError:
            raise
        except Exception as error:
            complaint = "".join(traceback.format_exception(error))
            raise BrokenError("no_pass_breaks", f"{key}: {complaint}") from error

    def reconcile_all(self) -> list[str]:
        """A pass over everything that is there, and over what that made."""
        return [written for key in self.operator.objects() for written in self.reconcile(key)]

    def settle(self) -> None:
        """Nothing happens any more: the operator comes to rest, and everything is as it should."""
        self.collect_garbage()
        self.operator.look_at_all()
        written: list[str] = []
        for _ in range(MOST_ROUNDS_TO_REST):
            written = self.reconcile_all()
            self.collect_garbage()
            if not written:
                check_state(self.server.now, When.ALWAYS, When.AT_REST)
                return
        raise BrokenError("everything_settles", f"still {written}")

    # --- the others ------------------------------------------------------------------------------

    def collect_garbage(self) -> None:
        self.server.collect_garbage()
        self.servers.forget()

    def go_on(self, how: Success, seconds: float = 60) -> None:
        """A round in which everybody does what they should."""
        self.collect_garbage()
        for step in (self._admit, self._sync, self._run, lambda: self._succeed(how), self._sync):
            step()
        for deployment in self.servers.deployments():
            self.servers.roll(deployment)
        for pod in self.servers.pods():
            self.servers.bring_files(pod)
            self.servers.load(pod)
        self.reconcile_all()
        self.server.clock.tick(seconds)

    def end(self) -> None:
        """All faults stop, and everybody does what status asks of them: does it end well?"""
        self.servers.mend()
        self.give(manifests.GIVEN[0])
        for each in self.objects(Kind.FINE_TUNE_JOB):
            self.suspend(each, suspend=False)
        for _ in range(MOST_ROUNDS_TO_END):
            self._do_what_is_asked()
            self.go_on(Success(), PATIENCE_SECONDS)
            if self._has_ended():
                self.settle()
                if self._has_ended():
                    break
        check_state(self.server.now, When.IN_THE_END)
        self._delete_all()
        check_state(self.server.now, When.ALL_DELETED)

    def _has_ended(self) -> bool:
        try:
            check_state(self.server.now, When.IN_THE_END)
        except BrokenError:
            return False
        return True

    def _delete_all(self) -> None:
        """While passes are under way that have not heard of it."""
        names = self.operator.objects()
        for key in names:
            self.server.remove(*key)
        self.server.remove(Deciding.POLICY, "tenants")
        for key in names:
            self.reconcile(key, Faults(lags=dict.fromkeys(KEPT, self.server.revision)))
        self.collect_garbage()

    def suspend(self, job: Object, *, suspend: bool) -> None:
        with self.server.change(job["kind"], job["metadata"]["name"]) as found:
            found["spec"]["suspend"] = suspend

    def give(self, given: Object) -> None:
        """The policy of the platform team gives this, from now on."""
        wanted = manifests.policy(given)
        if self.server.create(wanted) is None:
            with self.server.change(wanted["kind"], wanted["metadata"]["name"]) as found:
                found["spec"] = wanted["spec"]

    def approve(self, job: Object, by: str = "somebody") -> None:
        """What is in status now, as a person would copy it."""
        data = job.get("status", {}).get("dataset", {}).get("digest", "")
        with self.server.change(job["kind"], job["metadata"]["name"]) as found:
            annotations = found["metadata"].setdefault("annotations", {})
            annotations |= {APPROVED_DATA: data, APPROVED_BY: by}

    def _do_what_is_asked(self) -> None:
        for each in self.objects(Kind.FINE_TUNE_JOB):
            self.approve(each)
        for each in self.objects(Kind.EVAL_RUN):
            failed = each.get("status", {}).get("state") == EvalState.ERROR
            if failed and "ownerReferences" in each["metadata"]:
                self.server.remove(each["kind"], each["metadata"]["name"])

    def _admit(self) -> None:
        for job in self.workloads.jobs():
            self.workloads.admit(job)

    def _sync(self) -> None:
        for job in self.workloads.jobs():
            self.workloads.sync(job)

    def _run(self) -> None:
        for pod in self.workloads.pods("Pending"):
            self.workloads.run(pod)

    def _succeed(self, how: Success) -> None:
        for pod in self.workloads.pods(RUNS):
            self.workloads.succeed(pod, how)
