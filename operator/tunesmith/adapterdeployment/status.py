"""What an AdapterDeployment's status says: what was seen, replica by replica. Pure."""

from __future__ import annotations

from datetime import datetime

from tunesmith.adapterdeployment.autoscaling import scaled_objects, unavailable
from tunesmith.adapterdeployment.decision import Decision, Observed, Replica
from tunesmith.adapterdeployment.errands import Errand
from tunesmith.adapterdeployment.objects import Role, ServerPlan, child_name, endpoint, pod_labels
from tunesmith.adapterdeployment.rollout import Version
from tunesmith.adapterdeployment.selection import base_model_name
from tunesmith.api.objects import ConditionStatus
from tunesmith.api.reasons import ConditionReason, RefusalReason
from tunesmith.api.serving_contract import AdapterState, state_digest
from tunesmith.api.serving_status import (
    AdapterDeploymentStatus,
    ServedAdapter,
    ServerStatus,
    ServingState,
)
from tunesmith.kube import pods
from tunesmith.kube.advance import Advance, kstatus
from tunesmith.kube.conditions import Finding, fails, holds, updated
from tunesmith.kube.pods import Trouble
from tunesmith.settings import Settings

Errands = list[tuple[Errand, Advance]]
Judgement = tuple[ServingState, Finding, Finding | None]

#: At most this many refusals are listed in status, and this many names in a sentence.
MOST_REFUSALS = 100
MOST_NAMES = 5


def status_of(
    observed: Observed,
    decision: Decision,
    merges: Errands,
    removals: Errands,
    settings: Settings,
    now: datetime,
) -> AdapterDeploymentStatus:
    deployment = observed.deployment
    current = _current(observed, decision.server(Role.ADAPTERS))
    served = [_served(each, observed, decision, current) for each in decision.versions]
    state, ready, stalled = _judge(observed, decision, merges, served, current)
    finished = state in {ServingState.READY, ServingState.SCALED_TO_ZERO}
    findings = [ready, *kstatus(state, ready, stalled, finished=finished)]
    autoscaling = unavailable(deployment, settings, keda=observed.keda)
    findings += _warnings(decision, _keyless(observed) or autoscaling, removals)
    limits = decision.limits
    labels = pod_labels(deployment)
    return AdapterDeploymentStatus(
        observed_generation=deployment.metadata.generation,
        state=state,
        conditions=updated(
            deployment.status.conditions, findings, deployment.metadata.generation, now
        ),
        endpoint=endpoint(deployment),
        base_model_name=base_model_name(deployment),
        replicas=len(observed.of_role(Role.ADAPTERS)),
        ready_replicas=_answering(observed, Role.ADAPTERS),
        base_ready_replicas=_answering(observed, Role.BASE) or None,
        selector=",".join(f"{key}={value}" for key, value in labels.items()),
        autoscaled=bool(scaled_objects(deployment, settings, keda=observed.keda)) or None,
        server=ServerStatus(
            strategy=decision.choice.strategy,
            strategy_reason=decision.choice.reason,
            max_loras=limits.max_loras if limits else None,
            max_lora_rank=limits.max_lora_rank if limits else None,
            max_cpu_loras=limits.max_cpu_loras if limits else None,
        ),
        adapter_count=len({each.name for each in served}),
        adapters=served,
        not_served=decision.selection.rejected[:MOST_REFUSALS],
    )


def _current(observed: Observed, server: ServerPlan | None) -> list[Replica]:
    """Pods that answer, run with the present options and have taken up the desired state."""
    if server is None:
        return []
    digest = state_digest(server.desired_text)
    return [
        each
        for each in observed.of_role(server.role)
        if pods.is_ready(each.pod)
        and each.was_started_with(server.options_digest)
        and each.report is not None
        and each.report.desired == digest
        and each.report.serving
    ]


def _answering(observed: Observed, role: Role) -> int:
    return len([each for each in observed.of_role(role) if pods.is_ready(each.pod)])


def _served(
    version: Version, observed: Observed, decision: Decision, current: list[Replica]
) -> ServedAdapter:
    """Counted from what each replica was seen to answer with."""
    candidate, server = version.candidate, decision.main
    if server and server.merged:
        ready = len(current) if server.merged == candidate.model else 0
    else:
        able = [each for each in observed.of_role(Role.ADAPTERS) if pods.is_ready(each.pod)]
        ready = len([each for each in able if each.holds(candidate)])
    return ServedAdapter(
        name=candidate.name,
        version=candidate.version,
        state=version.state,
        weight=version.weight,
        digest=candidate.digest,
        uri=candidate.uri,
        job=candidate.job,
        gate=candidate.gate,
        evaluated_by=candidate.evaluated_by,
        replicas_ready=ready,
        replicas_wanted=observed.deployment.spec.replicas if version.loaded else 0,
        last_error=_last_error(version, observed),
        since=version.since,
    )


def _last_error(version: Version, observed: Observed) -> str | None:
    for replica in observed.of_role(Role.ADAPTERS):
        told = replica.told.get(version.candidate.model)
        if told and told.state in {AdapterState.REFUSED, AdapterState.FAILED}:
            return f"{told.reason}: {told.message}"[:512]
    return None


def _judge(
    observed: Observed,
    decision: Decision,
    merges: Errands,
    served: list[ServedAdapter],
    current: list[Replica],
) -> Judgement:
    deployment = observed.deployment
    wanted = deployment.spec.replicas
    if observed.foreign:
        message = (
            f"A {' and a '.join(observed.foreign)} exists and is not Tunesmith's: delete it, or "
            "use another name for this AdapterDeployment."
        )
        return _waiting(Trouble(ConditionReason.NAME_TAKEN, message))
    if decision.main is None:
        return _without_server(merges)
    if wanted == 0:
        finding = fails(
            "Ready", ConditionReason.SCALED_TO_ZERO, "replicas is 0: nothing is served."
        )
        return ServingState.SCALED_TO_ZERO, finding, None
    on_their_way = {each.candidate.model for each, _ in merges}
    missing = [
        each
        for each in served
        if each.replicas_ready < each.replicas_wanted
        and f"{each.name}@{each.version}" not in on_their_way
    ]
    hurt = [each for each in missing if each.last_error]
    enough = len(current) >= wanted and not _lacks_base(observed, decision)
    for _, advance in merges:
        if advance.stalled:
            return _waiting(Trouble(advance.stalled.reason, advance.stalled.message))
        if enough and not missing:
            # The version before is served meanwhile.
            finding = fails("Ready", ConditionReason.MERGING, advance.succeeded.message)
            return ServingState.MERGING, finding, None
    if enough and not missing and not merges:
        return (
            ServingState.READY,
            holds("Ready", ConditionReason.SERVING, _serving(decision, served)),
            None,
        )
    if enough and missing and len(hurt) == len(missing):
        return _degraded(hurt)
    if trouble := _trouble(observed):
        return _waiting(trouble)
    counted = [each.replicas_ready for each in served if each.replicas_wanted]
    done = min([len(current), *counted])
    lack = _lacks_base(observed, decision)
    message = f"{done} of {wanted} replicas serve: {_names(served)}.{lack}"
    answering = any(pods.is_ready(each.pod) for each in observed.replicas)
    state = ServingState.UPDATING if answering else ServingState.STARTING
    return state, fails("Ready", str(state), message), None


def _lacks_base(observed: Observed, decision: Decision) -> str:
    """A sentence, where pods for the base model alone are wanted and do not all serve as wanted."""
    wanted = observed.deployment.spec.base_replicas
    done = len(_current(observed, decision.server(Role.BASE)))
    return f" Of {wanted} pods for the base model {done} do." if done < wanted else ""


def _serving(decision: Decision, served: list[ServedAdapter]) -> str:
    main = decision.main
    assert main is not None
    own = [] if main.merged else [main.desired.base.name]
    return f"{main.replicas} of {main.replicas} replicas serve {_listed([*own, *_unique(served)])}."


def _without_server(merges: Errands) -> Judgement:
    """Merged weights before the first merge is done."""
    for errand, advance in merges:
        message = f"{errand.candidate.model} is being merged into the base model's weights."
        if advance.stalled:
            return _waiting(Trouble(advance.stalled.reason, advance.stalled.message))
        if advance.succeeded.reason not in (ConditionReason.PENDING, ConditionReason.RUNNING):
            message = f"{message} {advance.succeeded.message}"
        return ServingState.MERGING, fails("Ready", ConditionReason.MERGING, message), None
    message = "There is no adapter to merge yet; notServed says why."
    return ServingState.WAITING, fails("Ready", ConditionReason.NO_ADAPTER, message), None


def _degraded(hurt: list[ServedAdapter]) -> Judgement:
    """Everything else is served: what is wrong with these is theirs alone."""
    first = hurt[0]
    more = f" The same goes for {len(hurt) - 1} more; see status.adapters." if hurt[1:] else ""
    reason = _refusal(first.last_error or "")
    message = f"{first.name}@{first.version} is not served. {first.last_error}{more}"
    return (
        ServingState.DEGRADED,
        fails("Ready", reason, message),
        holds("Stalled", reason, message),
    )


def _refusal(error: str) -> RefusalReason:
    """The word before the colon; of a replica whose image is its user's own it may be any."""
    try:
        return RefusalReason(error.split(":", 1)[0])
    except ValueError:
        return RefusalReason.INTERNAL


def _keyless(observed: Observed) -> Trouble | None:
    """Keys are asked for, and nobody has one: the Secret is missing, or empty."""
    access = observed.deployment.spec.access
    if access is None or not any(
        each.report and each.report.clients == 0 for each in observed.replicas
    ):
        return None
    return Trouble(
        ConditionReason.NO_CLIENTS,
        f"Every request is refused with 401: the Secret {access.secret_ref.name} does not exist in "
        f"namespace {observed.deployment.metadata.namespace}, or has no entries. Create it with an "
        "entry for each client, its name and its API key; it counts within about a minute.",
    )


def _warnings(decision: Decision, trouble: Trouble | None, removals: Errands) -> list[Finding]:
    if trouble:
        return [holds("Warning", trouble.reason, trouble.message)]
    for errand, advance in removals:
        if advance.succeeded.status is ConditionStatus.FALSE:
            message = f"{errand.candidate.uri} is not deleted. {advance.succeeded.message}"
            return [holds("Warning", ConditionReason.FILES_NOT_DELETED, message)]
    limits = decision.limits
    held = len([each for each in decision.versions if each.loaded])
    if limits is None or held <= limits.max_loras:
        return []
    message = (
        f"{held} versions share {limits.max_loras} slots of a batch: requests for the others wait. "
        "Raise server.maxLoras if the GPU has room, or spread the adapters over several "
        "AdapterDeployments."
    )
    return [holds("Warning", ConditionReason.HOT_SET_DOES_NOT_FIT, message)]


def _names(served: list[ServedAdapter]) -> str:
    return _listed(_unique(served)) or "no adapter yet"


def _unique(served: list[ServedAdapter]) -> list[str]:
    return list(dict.fromkeys(each.name for each in served))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {len(names) - MOST_NAMES} more" if names[MOST_NAMES:] else shown


def _waiting(trouble: Trouble) -> Judgement:
    return (
        ServingState.WAITING,
        fails("Ready", trouble.reason, trouble.message),
        holds("Stalled", trouble.reason, trouble.message),
    )


def _trouble(observed: Observed) -> Trouble | None:
    found = (pods.trouble(each.pod) for each in observed.replicas)
    return next((each for each in found if each), None) or _refused_pods(observed)


def _refused_pods(observed: Observed) -> Trouble | None:
    """What keeps a Deployment from making pods: a quota, a policy, an unknown account."""
    for role in Role:
        status = (observed.child("Deployment", role) or {}).get("status", {})
        for condition in status.get("conditions", []):
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                name = child_name(observed.deployment, role)
                message = f"{name}: the pods cannot be created: {condition.get('message', '')}"
                return Trouble(ConditionReason.PODS_REFUSED, message[:2000])
    return None
