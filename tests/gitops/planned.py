"""States that simulated nodes do not show: what the planners say of made-up surroundings.

A fake of the cluster, because these take a trainer and a vLLM that really run. `make demo` with
``python -m tests.gitops.record --watch-only`` beside it shows them for real.
"""

from __future__ import annotations

from tunesmith.api import API_VERSION
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.finetunejob import FineTuneJob, Progress, TrainingPhase
from tunesmith.api.trainer_contract import ProgressReport

from examples.demo.kubectl import Object
from tests.unit.operator import given
from tests.unit.operator.plans import AT_ONCE, planned, seen
from tests.unit.operator.serving_given import ready_job, refuses, settled


def all_of_them() -> list[Object]:
    return [
        job_that_is(TrainingPhase.TRAINING),
        job_that_is(TrainingPhase.SAVING),
        serving(),
        serving_what_does_not_fit_a_batch(),
        serving_without_one_adapter(),
    ]


def job_that_is(phase: TrainingPhase) -> Object:
    job = given.finetunejob(status=given.prepared(attempt=1), evaluation=AT_ONCE)
    progress = ProgressReport(training=Progress(phase=phase, step=3, total_steps=10))
    made = planned(seen(job, [given.batch_job()], pods=[given.pod()], progress=progress))
    return _with(job, made.status.to_json())


def serving() -> Object:
    world = settled(ready_job("alpha", 1))
    return _with(world.deployment, world.deployment.status.to_json())


def serving_what_does_not_fit_a_batch() -> Object:
    jobs = [ready_job(f"adapter-{number}", number) for number in (1, 2)]
    world = settled(*jobs, server={"maxLoras": 1})
    return _with(world.deployment, world.deployment.status.to_json())


def serving_without_one_adapter() -> Object:
    world = settled(ready_job("alpha", 1))
    world.jobs.append(ready_job("beta", 2))
    world.step()
    world.answer(refuses("beta"))
    return _with(world.deployment, world.step().to_json())


def _with(described: FineTuneJob | AdapterDeployment, status: Object) -> Object:
    """The object, as the API server returns it, with this status."""
    return {
        "apiVersion": API_VERSION,
        "kind": type(described).__name__,
        "metadata": {"name": described.metadata.name, "generation": described.metadata.generation},
        "status": status,
    }
