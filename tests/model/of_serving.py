"""Invariants of serving, and of what belongs to whom."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.adapterdeployment.errands import PURPOSE, VERSION, Purpose
from tunesmith.adapterdeployment.objects import SERVES, Role, child_name, config_map_of
from tunesmith.api.adapter_selection import GateRule
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.objects import Kind
from tunesmith.api.serving_contract import DESIRED_FILE, DesiredState
from tunesmith.api.serving_status import ServedAdapter, Strategy, VersionState
from tunesmith.api.verdict import Verdict
from tunesmith.kube import pods
from tunesmith.kube.conditions import is_true

from tests.model.api_server import Object, View, Write, owner_uid
from tests.model.invariants import When, of_states, of_writes
from tests.model.truth import Truth


@of_writes
def only_proven_adapters_are_served(write: Write, truth: Truth) -> Iterator[str]:
    """No configuration of a server holds or routes to an adapter that never passed, unless it is
    named with gate: None."""
    if write.after["kind"] != "ConfigMap" or DESIRED_FILE not in write.after.get("data", {}):
        return
    deployment = AdapterDeployment.from_object(write.subject)
    wanted = DesiredState.model_validate_json(write.after["data"][DESIRED_FILE])
    ungated = {each.digest for each in deployment.spec.adapters.named if _is_ungated(each.gate)}
    passed = {digest for digest, told in truth.verdicts.items() if Verdict.PASSED in told}
    versions = {digest[7:19] for digest in passed | ungated}
    for each in wanted.adapters:
        if each.digest not in passed | ungated:
            yield f"{each.model} is loaded"
    for target in (target for route in wanted.routes for target in route.targets):
        if target.model.rpartition("@")[2] not in versions:
            yield f"{target.model} is asked"
        if target.model not in {wanted.base.name, *(each.model for each in wanted.adapters)}:
            yield f"{target.model} is asked and not loaded"


@of_writes
def promotion_follows_proof(write: Write, truth: Truth) -> Iterator[str]:
    """A version takes over from one that may still be served only when every replica that answers
    was seen to hold it."""
    if write.before is None or write.after["kind"] != Kind.ADAPTER_DEPLOYMENT:
        return
    before = AdapterDeployment.from_object(write.before)
    after = AdapterDeployment.from_object(write.after)
    servers = (before.status.server, after.status.server)
    if any(each is None or each.strategy is not Strategy.ADAPTERS for each in servers):
        return
    old = {each.name: each for each in before.status.adapters if _is_promoted(each)}
    for new in filter(_is_promoted, after.status.adapters):
        known = old.get(new.name)
        if known is None or known.digest == new.digest or not _is_selected(known, write):
            continue
        for pod in _answering(write):
            if new.digest not in _held(pod, write):
                yield f"{new.name}@{new.version} is not on {pod['metadata']['name']}"


@of_writes
def files_outlive_their_replicas(write: Write, truth: Truth) -> Iterator[str]:
    """The files of a version are deleted only when every replica was heard, and none holds it."""
    labels = write.after["metadata"].get("labels", {})
    if write.before or labels.get(PURPOSE) != Purpose.REMOVAL or write.after["kind"] != "Job":
        return
    for pod in _serving(write):
        report = write.reports.get(str(pods.address(pod)))
        if report is None:
            yield f"{pod['metadata']['name']} was not heard"
        elif any(each.endswith(labels[VERSION]) for each in [*report.leaving, report.base]):
            yield f"{pod['metadata']['name']} still serves {labels[VERSION]}"
        elif any(each.model.endswith(labels[VERSION]) for each in report.adapters):
            yield f"{pod['metadata']['name']} still holds {labels[VERSION]}"


@of_writes
def children_have_their_owner(write: Write, truth: Truth) -> Iterator[str]:
    """Everything that the operator makes belongs to the very object that it is made for."""
    if write.before is None and owner_uid(write.after) != write.subject["metadata"]["uid"]:
        yield f"{write.after['kind']} {write.after['metadata']['name']}"


@of_states(When.AT_REST)
def withdrawn_adapters_leave(view: View) -> Iterator[str]:
    """At rest no server is told to hold an adapter whose job is gone, no longer Ready, or no longer
    selected."""
    for raw in view.list(str(Kind.ADAPTER_DEPLOYMENT)):
        deployment = AdapterDeployment.from_object(raw)
        allowed = _allowed(deployment, view)
        running = view.get("Deployment", child_name(deployment))
        found = view.get("ConfigMap", config_map_of(running) or "")
        if running is None or found is None or owner_uid(running) != deployment.metadata.uid:
            continue
        wanted = DesiredState.model_validate_json(found["data"][DESIRED_FILE])
        targets = [each.model for route in wanted.routes for each in route.targets]
        for model in {*targets, *(each.model for each in wanted.adapters)}:
            if model.rpartition("@")[2] not in {digest[7:19] for digest in allowed}:
                yield f"{deployment.metadata.name} serves {model}"


@of_states(When.ALL_DELETED)
def nothing_is_left_behind(view: View) -> Iterator[str]:
    """When every object of ours is deleted, nothing that was made for it stays, although passes
    were under way that did not know."""
    for each in view.server.everything():
        yield f"{each['kind']} {each['metadata']['name']}"


# --- readings ------------------------------------------------------------------------------------


def _is_ungated(gate: GateRule) -> bool:
    return gate is GateRule.NONE


def _is_promoted(adapter: ServedAdapter) -> bool:
    return adapter.state is VersionState.PROMOTED


def _is_selected(adapter: ServedAdapter, write: Write) -> bool:
    """Whether the pass saw a reason to go on serving it."""
    return adapter.digest in _allowed(AdapterDeployment.from_object(write.subject), write.seen)


def _allowed(deployment: AdapterDeployment, view: View) -> set[str]:
    """Digests that may be served."""
    adapters = deployment.spec.adapters
    runs = [EvalRun.from_object(each) for each in view.list(str(Kind.EVAL_RUN))]
    passed = {each.status.adapter_digest for each in runs if each.status.verdict is Verdict.PASSED}
    allowed = {
        each.digest for each in adapters.named if _is_ungated(each.gate) or each.digest in passed
    }
    if adapters.selector is None and adapters.named:
        return allowed
    labels = adapters.selector.match_labels if adapters.selector else {}
    for raw in view.list(str(Kind.FINE_TUNE_JOB), labels):
        status = FineTuneJob.from_object(raw).status
        if status.artifact and is_true(status.conditions, "Ready"):
            allowed.add(status.artifact.digest)
    return allowed


def _serving(write: Write) -> list[Object]:
    uid = write.subject["metadata"]["name"]
    found = write.seen.list("Pod")
    return [
        each
        for each in found
        if SERVES in each["metadata"]["labels"] and uid in each["metadata"]["labels"].values()
    ]


def _answering(write: Write) -> list[Object]:
    mine = [each for each in _serving(write) if pods.is_ready(each)]
    return [each for each in mine if each["metadata"]["labels"][SERVES] == Role.ADAPTERS]


def _held(pod: Object, write: Write) -> set[str]:
    report = write.reports.get(str(pods.address(pod)))
    return {each.digest for each in report.adapters if each.state == "Ready"} if report else set()
