"""Random histories of users, cluster and faults, and what must hold in all of them."""

from __future__ import annotations

import sys

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tunesmith.api.objects import Kind
from tunesmith.kube.watched import KEPT

from tests.model import manifests
from tests.model.api_server import Key, Object
from tests.model.choices import FAULTS, SHAPES, SUCCESSES, WHICH
from tests.model.connection import Faults, touch
from tests.model.invariants import When, check_state
from tests.model.manifests import ADAPTER_EDITS, EDITS, JOBS, SERVED_NAME, JobShape
from tests.model.profiles import chosen
from tests.model.trainer import Ending, Success
from tests.model.workloads import RUNS
from tests.model.world import World


def one(found: list[Object], which: int) -> Object:
    return found[which % len(found)]


def named(found: Object) -> Key:
    return found["kind"], found["metadata"]["name"]


class Histories(RuleBasedStateMachine):
    """Every rule is something that users, the cluster, or faults do on a day."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(shape=SHAPES, rounds=st.integers(0, 6), how=SUCCESSES)
    def begin(self, shape: JobShape, rounds: int, how: Success) -> None:
        """A job and a deployment, some way along."""
        self.world.server.create(shape.manifest(JOBS[0]))
        self.world.server.create(manifests.adapter_deployment())
        for _ in range(rounds):
            self.world.go_on(how)

    def teardown(self) -> None:
        """A history that broke something already is not played to its end."""
        try:
            if sys.exc_info()[0] is None:
                self.world.end()
        finally:
            self.world.close()

    @invariant()
    def what_must_always_hold(self) -> None:
        check_state(self.world.server.now, When.ALWAYS)

    # --- users -----------------------------------------------------------------------------------

    @rule(name=st.sampled_from(JOBS), shape=SHAPES)
    def apply_job(self, name: str, shape: JobShape) -> None:
        self.world.server.create(shape.manifest(name))

    @rule(name=st.sampled_from(JOBS), shape=SHAPES)
    def apply_job_anew(self, name: str, shape: JobShape) -> None:
        """Under the name of one that was deleted just now."""
        self.world.server.remove(str(Kind.FINE_TUNE_JOB), name)
        self.world.server.create(shape.manifest(name))

    @rule(of_job=st.booleans())
    def apply_run(self, of_job: bool) -> None:
        name = "judge-job" if of_job else "judge-foreign"
        self.world.server.create(manifests.eval_run(name, of_job=of_job))

    @rule()
    def apply_deployment(self) -> None:
        self.world.server.create(manifests.adapter_deployment())

    @precondition(lambda self: self.has("FineTuneJob", "EvalRun", "AdapterDeployment"))
    @rule(which=WHICH)
    def delete_object(self, which: int) -> None:
        self.world.server.remove(*named(one(self.world.objects(), which)))

    @precondition(lambda self: self.has("FineTuneJob"))
    @rule(which=WHICH, suspend=st.booleans())
    def suspend_or_resume(self, which: int, suspend: bool) -> None:
        self.world.suspend(one(self.world.objects(Kind.FINE_TUNE_JOB), which), suspend=suspend)

    @precondition(lambda self: self.has("FineTuneJob"))
    @rule(which=WHICH, by=st.sampled_from(["somebody", ""]))
    def approve(self, which: int, by: str) -> None:
        self.world.approve(one(self.world.objects(Kind.FINE_TUNE_JOB), which), by)

    @precondition(lambda self: self.has("AdapterDeployment"))
    @rule(edit=st.sampled_from(EDITS))
    def edit_deployment(self, edit: Object) -> None:
        with self.world.server.change("AdapterDeployment", "serving") as found:
            found["spec"] |= edit

    @precondition(lambda self: self.has("AdapterDeployment"))
    @rule(edit=st.sampled_from(ADAPTER_EDITS))
    def edit_selection(self, edit: Object) -> None:
        with self.world.server.change("AdapterDeployment", "serving") as found:
            found["spec"]["adapters"] |= edit

    @precondition(lambda self: self.has("AdapterDeployment"))
    @rule(which=WHICH)
    def pin(self, which: int) -> None:
        digests = sorted({each for made in self.world.truth.trained.values() for each in made})
        version = (digests[which % len(digests)] if digests else "sha256:" + "0" * 64)[7:19]
        with self.world.server.change("AdapterDeployment", "serving") as found:
            found["spec"]["adapters"]["pins"] = [{"name": SERVED_NAME, "version": version}]

    # --- meddling --------------------------------------------------------------------------------

    @precondition(lambda self: self.has("FineTuneJob", "EvalRun", "AdapterDeployment"))
    @rule(which=WHICH)
    def wipe_status(self, which: int) -> None:
        with self.world.server.change(*named(one(self.world.objects(), which))) as found:
            found.pop("status", None)

    @precondition(lambda self: self.has("FineTuneJob", "EvalRun", "AdapterDeployment"))
    @rule(which=WHICH)
    def annotate_object(self, which: int) -> None:
        touch(self.world.server, named(one(self.world.objects(), which)))

    @precondition(lambda self: self.has("Job"))
    @rule(which=WHICH, foreground=st.booleans())
    def delete_batch_job(self, which: int, foreground: bool) -> None:
        """In the foreground it stays, leaving, until its pods are gone."""
        kind, name = named(one(self.world.server.now.list("Job"), which))
        if not foreground:
            self.world.server.remove(kind, name)
            return
        with self.world.server.change(kind, name) as found:
            found["metadata"]["deletionTimestamp"] = self.world.server.clock.stamp()

    @precondition(lambda self: self.has("ConfigMap"))
    @rule(which=WHICH)
    def delete_config_map(self, which: int) -> None:
        self.world.server.remove(*named(one(self.world.server.now.list("ConfigMap"), which)))

    @precondition(lambda self: self.has("Deployment"))
    @rule(which=WHICH, replicas=st.integers(0, 3))
    def scale_by_hand(self, which: int, replicas: int) -> None:
        kind, name = named(one(self.world.server.now.list("Deployment"), which))
        with self.world.server.change(kind, name) as found:
            found["spec"]["replicas"] = replicas

    # --- the cluster: trainers -------------------------------------------------------------------

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

    @precondition(lambda self: self.has("Pod"))
    @rule(which=WHICH, how=SUCCESSES)
    def pod_succeeds(self, which: int, how: Success) -> None:
        if pods := self.world.workloads.pods(RUNS):
            self.world.workloads.succeed(one(pods, which), how)

    @precondition(lambda self: self.has("Pod"))
    @rule(which=WHICH, ending=st.sampled_from(Ending))
    def pod_fails(self, which: int, ending: Ending) -> None:
        if pods := self.world.workloads.pods(RUNS):
            self.world.workloads.fail(one(pods, which), ending)

    @precondition(lambda self: self.has("Pod"))
    @rule(which=WHICH)
    def pod_is_evicted(self, which: int) -> None:
        if pods := self.world.workloads.pods("Pending", RUNS):
            self.world.workloads.evict(one(pods, which))

    @precondition(lambda self: self.has("Pod"))
    @rule(which=WHICH)
    def pod_vanishes(self, which: int) -> None:
        if pods := self.world.workloads.pods():
            self.world.workloads.vanish(one(pods, which))

    @rule()
    def garbage_collector(self) -> None:
        self.world.collect_garbage()

    # --- the cluster: servers --------------------------------------------------------------------

    @precondition(lambda self: self.has("Deployment"))
    @rule(which=WHICH)
    def deployment_controller(self, which: int) -> None:
        self.world.servers.roll(one(self.world.servers.deployments(), which))

    @precondition(lambda self: self.has("Pod"))
    @rule(which=WHICH, loads=st.booleans())
    def replica_reads_its_files(self, which: int, loads: bool) -> None:
        if pods := self.world.servers.pods():
            self.world.servers.bring_files(one(pods, which))
            if loads:
                self.world.servers.load(one(pods, which))

    @precondition(lambda self: self.has("Pod"))
    @rule(which=WHICH, happens=st.sampled_from(["load", "refuse", "restart", "fall_silent"]))
    def replica(self, which: int, happens: str) -> None:
        if pods := self.world.servers.pods():
            getattr(self.world.servers, happens)(one(pods, which))

    @precondition(lambda self: self.has("Pod"))
    @rule(which=WHICH, errors=st.booleans())
    def replica_is_asked(self, which: int, errors: bool) -> None:
        if pods := self.world.servers.pods():
            self.world.servers.ask(one(pods, which), errors=errors)

    # --- the operator ----------------------------------------------------------------------------

    @precondition(lambda self: self.has("FineTuneJob", "EvalRun", "AdapterDeployment"))
    @rule(which=WHICH, faults=FAULTS)
    def faulty_pass(self, which: int, faults: Faults) -> None:
        keys = self.world.operator.objects()
        self.world.reconcile(keys[which % len(keys)], faults)

    @precondition(lambda self: self.has("FineTuneJob", "EvalRun", "AdapterDeployment"))
    @rule(which=WHICH)
    def one_pass(self, which: int) -> None:
        keys = self.world.operator.objects()
        self.world.reconcile(keys[which % len(keys)])

    @rule()
    def operator_restarts(self) -> None:
        self.world.operator.start()

    @rule(kind=st.sampled_from(KEPT))
    def watch_breaks(self, kind: str) -> None:
        """What was deleted meanwhile is not told of; only a comparison finds that out."""
        self.world.operator.hear(kind, of_what_went=False)

    @rule()
    def operator_looks_at_all(self) -> None:
        self.world.operator.look_at_all()

    @rule()
    def pass_over_all(self) -> None:
        self.world.reconcile_all()

    @rule()
    def come_to_rest(self) -> None:
        self.world.settle()

    @rule(how=SUCCESSES, rounds=st.integers(1, 3))
    def go_on(self, how: Success, rounds: int) -> None:
        for _ in range(rounds):
            self.world.go_on(how)

    @rule(seconds=st.sampled_from([5, 60, 700, 36_000]))
    def time_passes(self, seconds: int) -> None:
        self.world.server.clock.tick(seconds)

    def has(self, *kinds: str) -> bool:
        return any(kind in kinds for kind, _ in self.world.server.states[-1])


TestHistories = Histories.TestCase
TestHistories.settings = chosen()
