"""What people do: what they should, and what they should not."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tunesmith.api.objects import Kind
from tunesmith.kube.policies import Deciding

from tests.model import manifests
from tests.model.api_server import Object
from tests.model.choices import SHAPES
from tests.model.connection import touch
from tests.model.history import OF_OURS, WHICH, History, named, one
from tests.model.manifests import ADAPTER_EDITS, EDITS, GIVEN, JOBS, SERVED_NAME, JobShape


class ByUsers(History):
    """Applying, deleting, approving, selecting; and meddling with children and status."""

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

    @precondition(lambda self: self.has(*OF_OURS))
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

    @rule(given=st.sampled_from(GIVEN))
    def apply_policy(self, given: Object) -> None:
        self.world.give(given)

    @rule()
    def delete_policy(self) -> None:
        self.world.server.remove(Deciding.POLICY, "tenants")

    # --- meddling --------------------------------------------------------------------------------

    @precondition(lambda self: self.has(*OF_OURS))
    @rule(which=WHICH)
    def wipe_status(self, which: int) -> None:
        with self.world.server.change(*named(one(self.world.objects(), which))) as found:
            found.pop("status", None)

    @precondition(lambda self: self.has(*OF_OURS))
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
