"""What all rules share: the world, and how one of what is there is chosen."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tests.model.api_server import Key, Object
from tests.model.world import World

#: Which one of what is there; whatever it is, it means one.
WHICH = st.integers(0, 7)
OF_OURS = ("FineTuneJob", "EvalRun", "AdapterDeployment")


class History(RuleBasedStateMachine):
    """What happens in one world."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def has(self, *kinds: str) -> bool:
        return any(kind in kinds for kind, _ in self.world.server.states[-1])


def one(found: list[Object], which: int) -> Object:
    return found[which % len(found)]


def named(found: Object) -> Key:
    return found["kind"], found["metadata"]["name"]
