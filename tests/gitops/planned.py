"""What no run showed: what the operator's planner says of made-up replicas.

A fake of the cluster, because these take adapters that a vLLM at work refuses, or has no room for.
"""

from __future__ import annotations

from tunesmith.api import API_VERSION

from examples.demo.kubectl import Object
from tests.unit.operator.serving_given import World, ready_job, refuses, settled


def serving_without_one_adapter() -> Object:
    world = settled(ready_job("alpha", 1))
    world.jobs.append(ready_job("beta", 2))
    world.step()
    world.answer(refuses("beta"))
    world.step()
    return _as_it_is(world)


def serving_more_than_a_batch_holds() -> Object:
    jobs = [ready_job(f"adapter-{number}", number) for number in (1, 2)]
    return _as_it_is(settled(*jobs, server={"maxLoras": 1}))


def _as_it_is(world: World) -> Object:
    """The AdapterDeployment, as the API server returns it."""
    metadata = world.deployment.metadata
    return {
        "apiVersion": API_VERSION,
        "kind": "AdapterDeployment",
        "metadata": {"name": metadata.name, "generation": metadata.generation},
        "status": world.deployment.status.to_json(),
    }
