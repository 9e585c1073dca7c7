"""How many histories are played.

`make test-fast` plays some, always the same; `make test-model` ten times as many, new ones each
time. A history that breaks something is printed as the steps that lead to it.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

MANY_HISTORIES = "many-histories"

FEW = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    # Not Phase.explain: it takes longer than all the others, and what broke says itself why.
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
MANY = settings(FEW, max_examples=10 * FEW.max_examples, derandomize=False, print_blob=True)

settings.register_profile(MANY_HISTORIES, MANY)


def chosen() -> settings:
    """What pytest was asked for."""
    return MANY if settings.get_current_profile_name() == MANY_HISTORIES else FEW
