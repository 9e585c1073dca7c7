"""Random histories of users, cluster and faults, and what must hold in all of them."""

from __future__ import annotations

import sys

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from tunesmith.kube.reader import KEPT

from tests.model import manifests
from tests.model.api_server import Object
from tests.model.by_trainers import ByTrainers
from tests.model.by_users import ByUsers
from tests.model.choices import FAULTS, SHAPES, SUCCESSES
from tests.model.connection import Faults
from tests.model.history import OF_OURS, WHICH, one
from tests.model.invariants import When, check_state
from tests.model.manifests import ADAPTER_EDITS, JOBS, JobShape
from tests.model.profiles import chosen
from tests.model.trainer import Success


class Histories(ByUsers, ByTrainers):
    """Every rule is something that users, the cluster, or faults do on a day."""

    @initialize(
        shapes=st.lists(SHAPES, min_size=1, max_size=2),
        edits=st.lists(st.sampled_from(ADAPTER_EDITS), max_size=3),
        rounds=st.integers(0, 8),
        how=SUCCESSES,
    )
    def begin(self, shapes: list[JobShape], edits: list[Object], rounds: int, how: Success) -> None:
        """A job or two and a deployment, some way along."""
        for name, shape in zip(JOBS, shapes, strict=False):
            self.world.server.create(shape.manifest(name))
        self.world.server.create(manifests.adapter_deployment())
        for edit in edits:
            self.edit_selection(edit)
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

    # --- servers --------------------------------------------------------------------

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

    @precondition(lambda self: self.has(*OF_OURS))
    @rule(which=WHICH, faults=FAULTS)
    def faulty_pass(self, which: int, faults: Faults) -> None:
        keys = self.world.operator.objects()
        self.world.reconcile(keys[which % len(keys)], faults)

    @precondition(lambda self: self.has(*OF_OURS))
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


TestHistories = Histories.TestCase
TestHistories.settings = chosen()
