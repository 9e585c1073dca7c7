"""``status``: one object in a few lines, or everything in the namespace in a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tunesmith.api import evalrun, job_status
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun, SuiteResult
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import FineTuneJobStatus, JobState, Progress
from tunesmith.api.objects import Condition, ConditionStatus
from tunesmith.api.serving_status import ServedAdapter
from tunesmith.commandline.connection import Connection, Object
from tunesmith.commandline.layout import facts, points, short, signed, table
from tunesmith.commandline.plan import plan_facts
from tunesmith.commandline.target import ORDER, target

#: Conditions that tell of something unusual when they hold; all others when they do not.
ALARMS = {"Stalled", "Warning", "Suspended"}
#: Says only that the work is not done yet.
NOT_YET = "NotTrained"
#: For tools; state says the same to people.
FOR_TOOLS = {"Reconciling", "Finished"}
FINISHED = job_status.FINISHED | evalrun.FINISHED


def look(connection: Connection, word: str | None) -> list[Object]:
    """The object that is meant, or all of the namespace."""
    if word is not None:
        return [target(connection, word)]
    return [{**each, "kind": kind} for kind in ORDER for each in connection.list(kind)]


def told(connection: Connection, objects: list[Object], *, alone: bool) -> list[str]:
    """The text for people."""
    if not alone:
        return overview(objects) or [f"nothing is in the namespace {connection.namespace}"]
    (raw,) = objects
    is_job = raw["kind"] == "FineTuneJob"
    return lines(raw, connection.list("AdapterDeployment") if is_job else ())


def is_finished(raw: Object) -> bool:
    """Whether nothing follows, so that nobody need watch it any longer."""
    if raw["kind"] == "AdapterDeployment":
        return False
    return raw.get("status", {}).get("state") in FINISHED


def lines(raw: Object, deployments: Iterable[Object] = ()) -> list[str]:
    """The object for people; ``deployments`` of its namespace tell where an adapter is served."""
    state = raw.get("status", {}).get("state", "not seen by the operator yet")
    heading = f"{raw['kind']} {raw['metadata']['name']}: {state}"
    match raw["kind"]:
        case "FineTuneJob":
            job = FineTuneJob.from_object(raw)
            served = [AdapterDeployment.from_object(each) for each in deployments]
            found = [*_of_job(job), *_where_served(job, served)]
            conditions = job.status.conditions
        case "EvalRun":
            run = EvalRun.from_object(raw)
            found, conditions = list(_of_run(run)), run.status.conditions
        case _:
            deployment = AdapterDeployment.from_object(raw)
            found, conditions = list(_of_deployment(deployment)), deployment.status.conditions
    return [heading, *facts([*found, *_telling(conditions)])]


def overview(objects: Iterable[Object]) -> list[str]:
    """A line for each object."""
    rows = [("KIND", "NAME", "STATE", "TELLS")]
    for raw in objects:
        status = raw.get("status", {})
        rows.append((raw["kind"], raw["metadata"]["name"], status.get("state", "-"), _tells(raw)))
    return table(rows) if len(rows) > 1 else []


def _tells(raw: Object) -> str:
    status = raw.get("status", {})
    match raw["kind"]:
        case "FineTuneJob":
            job = FineTuneJob.from_object(raw).status
            if job.evaluation and job.evaluation.verdict:
                return f"{job.evaluation.verdict}, {signed(job.evaluation.difference)} points"
            return _how_far(job.progress) if job.progress and not job.artifact else ""
        case "EvalRun":
            return str(status.get("verdict", ""))
        case _:
            names = status.get("adapterCount", 0)
            return f"{names} adapters, {status.get('readyReplicas', 0)} replicas answer"


def _telling(conditions: Iterable[Condition]) -> Iterator[tuple[str, str]]:
    """The conditions that ask something of somebody; two that say the same are one."""
    said = set()
    for each in conditions:
        unusual = ConditionStatus.TRUE if each.type in ALARMS else ConditionStatus.FALSE
        if each.type in FOR_TOOLS or each.status is not unusual:
            continue
        if each.reason == NOT_YET or each.message in said:
            continue
        said.add(each.message)
        yield each.type, f"{each.status}, {each.reason}: {each.message}"


def _of_job(job: FineTuneJob) -> Iterator[tuple[str, str]]:
    status = job.status
    yield "base model", job.spec.base_model.uri
    if status.progress and not status.artifact:
        yield "progress", _how_far(status.progress)
    if data := status.dataset:
        yield (
            "data",
            (
                f"{data.rows} rows: {data.train_rows} trained on, {data.held_out_rows} held out "
                f"({short(data.digest)})"
            ),
        )
    if status.plan:
        yield from plan_facts(status.plan)
    if status.failure and not status.artifact:
        failure = status.failure
        yield "attempt", f"{failure.attempt} failed, {failure.reason}: {failure.message}"
    yield from _measured(status)
    if status.state is JobState.AWAITING_REVIEW:
        name = job.metadata.name
        yield "look", f"kubectl tunesmith report {name} --page review --open"
        yield "approve", f"kubectl tunesmith approve {name}"
    if status.artifact:
        yield "artifact", status.artifact.uri


def _how_far(progress: Progress) -> str:
    parts = [str(progress.phase)]
    if progress.step is not None and progress.total_steps:
        parts.append(f"step {progress.step} of {progress.total_steps} ({progress.percent or 0}%)")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3g}")
    if progress.eta:
        parts.append(f"{progress.eta} left")
    return ", ".join(parts)


def _measured(status: FineTuneJobStatus) -> Iterator[tuple[str, str]]:
    if before := status.preflight:
        prompted = f", {points(before.prompted_base)} prompted" if before.prompted_base else ""
        yield "preflight", f"the base model has {points(before.base)}{prompted} ({before.metric})"
    judged = status.evaluation
    if judged is None or judged.verdict is None:
        return
    between = judged.confidence_interval
    interval = f" ({signed(between.lower)} to {signed(between.upper)})" if between else ""
    prompted = f", prompted {points(judged.prompted_base)}" if judged.prompted_base else ""
    yield (
        "verdict",
        (
            f"{judged.verdict}: {signed(judged.difference)} points{interval}; base "
            f"{points(judged.base)}{prompted}, adapter {points(judged.adapter)} "
            f"({judged.metric}, {judged.name})"
        ),
    )
    if advice := judged.recommendation:
        change = (
            f" of {advice.field} from {advice.before} to {advice.after}" if advice.field else ""
        )
        yield "advice", f"{advice.action}{change}: {advice.because}"


def _where_served(
    job: FineTuneJob, deployments: Iterable[AdapterDeployment]
) -> Iterator[tuple[str, str]]:
    name = job.metadata.name
    for deployment in deployments:
        place, status = deployment.metadata.name, deployment.status
        for each in status.adapters:
            if each.job == name:
                yield "served by", f"{place}/{each.name}: {_adapter(each)}, at {status.endpoint}"
        for refused in status.not_served:
            if refused.name == name:
                yield "served by", f"not {place}, {refused.reason}: {refused.message}"


def _adapter(served: ServedAdapter) -> str:
    ready = f"{served.replicas_ready} of {served.replicas_wanted} replicas"
    error = f", {served.last_error}" if served.last_error else ""
    weight = f" {served.weight}%" if served.weight != 100 else ""
    return f"{served.version} {served.state}{weight}, {ready}{error}"


def _of_run(run: EvalRun) -> Iterator[tuple[str, str]]:
    status = run.status
    if status.progress and not status.verdict:
        percent = f", {status.progress.percent}%" if status.progress.percent is not None else ""
        yield "progress", f"{status.progress.phase}{percent}"
    if status.verdict:
        yield "verdict", str(status.verdict)
    verdicts = {each.suite: each for each in status.gates}
    for each in status.results:
        gate = verdicts.get(each.suite)
        said = f"{gate.verdict} (more than {gate.minimum_difference:g}): " if gate else ""
        yield each.suite, said + _suite(each)
    if status.report:
        yield "report", status.report.uri


def _suite(result: SuiteResult) -> str:
    told = f"{result.metric} of {result.items} items, base {points(result.base)}"
    if result.prompted_base is not None:
        told += f", prompted {points(result.prompted_base)}"
    if result.adapter is not None:
        told += f", adapter {points(result.adapter)}, difference {signed(result.difference)}"
    if between := result.confidence_interval:
        told += f" ({signed(between.lower)} to {signed(between.upper)})"
    return told


def _of_deployment(deployment: AdapterDeployment) -> Iterator[tuple[str, str]]:
    status = deployment.status
    yield "base model", f"{deployment.spec.base_model.uri} as {status.base_model_name or '-'}"
    if status.endpoint:
        yield "endpoint", status.endpoint
    yield "replicas", f"{status.ready_replicas or 0} of {status.replicas or 0} answer"
    for each in status.adapters:
        yield each.name, _adapter(each)
    for refused in status.not_served:
        yield refused.name, f"not served, {refused.reason}: {refused.message}"
