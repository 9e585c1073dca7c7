"""What an AdapterDeployment serves, and with which servers. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

from tunesmith.adapterdeployment import errands, merging, retirement, rollout
from tunesmith.adapterdeployment.configuration import (
    base_state,
    desired_state,
    options_model,
    options_text,
    server_options,
    with_adapters,
    with_merged_model,
)
from tunesmith.adapterdeployment.limits import Limits, limits, running_limits
from tunesmith.adapterdeployment.objects import (
    OPTIONS_DIGEST,
    SERVES,
    Role,
    ServerPlan,
    child_name,
    config_map_of,
    keeping_claims,
)
from tunesmith.adapterdeployment.rollout import Evidence, Version
from tunesmith.adapterdeployment.selection import (
    Candidate,
    Selection,
    at_most,
    base_model_name,
    select,
)
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.reasons import NotServedReason
from tunesmith.api.serving_contract import (
    SERVER_FILE,
    AdapterReport,
    AdapterState,
    ReplicaReport,
    Traffic,
)
from tunesmith.api.serving_status import MOST_VERSIONS, Strategy, VersionState
from tunesmith.kube import pods
from tunesmith.kube.plan import Object
from tunesmith.kube.policies import NO_DEFAULTS, Defaults
from tunesmith.kube.volumes import Mount, claim, mount

#: Served names: there is room for a version that answers, and for one that takes over.
MOST_NAMES = MOST_VERSIONS // 2
TOO_MANY = (
    NotServedReason.TOO_MANY_NAMES,
    f"An AdapterDeployment serves {MOST_NAMES} names at most: give others one of their own, with a "
    "label that chooses them.",
)
ONE_ONLY = (
    NotServedReason.ONE_ADAPTER_ONLY,
    "Merged weights hold one adapter, and {} is served: use strategy Adapters, or give this one an "
    "AdapterDeployment of its own.",
)


@dataclass(frozen=True)
class Replica:
    """One serving pod, and what its sidecar reports; None while it does not answer."""

    pod: Object
    report: ReplicaReport | None = None

    @property
    def role(self) -> str:
        return str(self.pod["metadata"]["labels"].get(SERVES, ""))

    def was_started_with(self, options_digest: str) -> bool:
        annotations = self.pod["metadata"].get("annotations", {})
        return bool(annotations.get(OPTIONS_DIGEST) == options_digest)

    def serves_as_base(self, model: str) -> bool:
        """Whether its weights are those of an adapter that was merged into them."""
        return self.report is not None and self.report.serving and self.report.base == model

    def reads(self, config_map: str) -> bool:
        volumes = self.pod.get("spec", {}).get("volumes", [])
        return any(each.get("configMap", {}).get("name") == config_map for each in volumes)

    def holds(self, candidate: Candidate) -> bool:
        """Whether it was seen to answer with exactly these files."""
        told = self.told.get(candidate.model)
        return (
            told is not None
            and told.digest == candidate.digest
            and told.state is AdapterState.READY
        )

    @cached_property
    def told(self) -> dict[str, AdapterReport]:
        """What it reports, by version."""
        return {each.model: each for each in (self.report.adapters if self.report else [])}


@dataclass(frozen=True)
class Observed:
    """Everything that a plan is made from."""

    deployment: AdapterDeployment
    jobs: list[FineTuneJob] = field(default_factory=list)
    runs: list[EvalRun] = field(default_factory=list)
    #: The children by kind and name, raw; those that do not exist are missing.
    children: dict[tuple[str, str], Object] = field(default_factory=dict)
    #: Children whose name is taken by an object of somebody else.
    foreign: list[str] = field(default_factory=list)
    replicas: list[Replica] = field(default_factory=list)
    #: Whether KEDA is installed; only looked up when it is needed.
    keda: bool = False
    #: Jobs that merge or delete versions, and their pods.
    jobs_of_ours: list[Object] = field(default_factory=list)
    job_pods: list[Object] = field(default_factory=list)
    #: What the policies of its namespace give.
    given: Defaults = NO_DEFAULTS
    #: Digests that other AdapterDeployments serve; only looked up when files are to be deleted.
    served_elsewhere: frozenset[str] = frozenset()

    def child(self, kind: str, role: Role) -> Object | None:
        return self.children.get((kind, child_name(self.deployment, role)))

    def of_role(self, role: Role) -> list[Replica]:
        return [each for each in self.replicas if each.role == role]


@dataclass(frozen=True)
class Decision:
    """What is to be served, by which servers."""

    selection: Selection
    choice: merging.Choice
    versions: list[Version]
    servers: list[ServerPlan]
    limits: Limits | None = None
    #: Merges that are not done.
    merges: list[errands.Errand] = field(default_factory=list)
    #: Deletions of files that are not done.
    removals: list[errands.Errand] = field(default_factory=list)

    @property
    def main(self) -> ServerPlan | None:
        return self.server(Role.ADAPTERS)

    def server(self, role: Role) -> ServerPlan | None:
        return next((each for each in self.servers if each.role is role), None)


def decide(observed: Observed, now: datetime) -> Decision:
    """What is to be served, from what may be served and what was seen."""
    deployment = observed.deployment
    everything = select(deployment, observed.jobs, observed.runs)
    deleted = retirement.deleted(observed.jobs_of_ours)
    selection = everything
    if deleted:
        selection = select(deployment, observed.jobs, observed.runs, deleted)
    choice = merging.choose(deployment, len(selection.served))
    if choice.strategy is Strategy.MERGED:
        decision = _merged(observed, selection, choice, now)
    else:
        decision = _beside_the_base(observed, selection, choice, now)
    leaving = retirement.retired(deployment, everything, decision.versions, _held(observed))
    left = retirement.removals(leaving, observed.jobs_of_ours, observed.job_pods)
    return replace(decision, removals=left)


def _held(observed: Observed) -> set[str] | None:
    """Models that some replica still has, and digests that others serve; None if one is silent."""
    reports = [each.report for each in observed.replicas]
    if any(each is None for each in reports):
        return None
    here = {
        model
        for each in reports
        if each
        for model in (each.base, *each.leaving, *(told.model for told in each.adapters))
    }
    return here | observed.served_elsewhere


# --- adapters beside the base model --------------------------------------------------------------


def _beside_the_base(
    observed: Observed, selection: Selection, choice: merging.Choice, now: datetime
) -> Decision:
    deployment = observed.deployment
    served = [each for each in deployment.status.adapters if each.state is VersionState.PROMOTED]
    selection = at_most(max(MOST_NAMES, len(served)), selection, deployment, *TOO_MANY)
    evidence = Evidence(_everywhere(observed), traffic(observed.replicas), now)
    versions = rollout.within_bounds(
        rollout.versions(
            selection.served, deployment.spec.adapters, deployment.status.adapters, evidence
        )
    )
    loaded = [each.candidate for each in versions if each.loaded]
    chosen = limits(deployment, loaded, _running_limits(observed))
    options = with_adapters(server_options(deployment), deployment, chosen)
    main = ServerPlan(
        role=Role.ADAPTERS,
        config_map=child_name(deployment),
        options=options_text(options),
        desired=desired_state(deployment, versions, chosen, _base_address(observed)),
        replicas=deployment.spec.replicas,
        mounts=[
            mount(deployment.spec.base_model.uri),
            *(mount(each.uri) for each in loaded),
            *map(claim, deployment.spec.adapters.claims),
            *_claims_of_coming(observed),
        ],
    )
    main = keeping_claims(main, observed.child("Deployment", Role.ADAPTERS))
    return Decision(selection, choice, versions, [main, *_base_server(observed)], chosen)


def _claims_of_coming(observed: Observed) -> list[Mount]:
    """Where jobs under way will leave their adapters: mounted by the time of the verdict.

    A job that has begun has shown that its claim exists; no other may hold up a serving pod.
    """
    return [
        mount(job.output.uri)
        for job in observed.jobs
        if job.output
        and job.status.progress
        and job.spec.base_model.uri == observed.deployment.spec.base_model.uri
    ]


def _everywhere(observed: Observed) -> Callable[[Candidate], bool]:
    """Whether every replica that answers holds a version; others do before they answer."""
    ready = [each for each in observed.of_role(Role.ADAPTERS) if pods.is_ready(each.pod)]

    def found(candidate: Candidate) -> bool:
        return bool(ready) and all(each.holds(candidate) for each in ready)

    return found


def _running_limits(observed: Observed) -> Limits | None:
    config_map = observed.child("ConfigMap", Role.ADAPTERS) or {}
    return running_limits(observed.deployment, config_map.get("data", {}).get(SERVER_FILE))


def _base_server(observed: Observed) -> list[ServerPlan]:
    """Pods for the base model alone; once made they are scaled to zero, not deleted."""
    deployment = observed.deployment
    wanted = deployment.spec.base_replicas
    if not wanted and not observed.child("Deployment", Role.BASE):
        return []
    return [
        ServerPlan(
            role=Role.BASE,
            config_map=child_name(deployment, Role.BASE),
            options=options_text(server_options(deployment)),
            desired=base_state(deployment, base_model_name(deployment), []),
            replicas=wanted,
            mounts=[mount(deployment.spec.base_model.uri)],
        )
    ]


def _base_address(observed: Observed) -> str | None:
    """Where requests of the base model go, once somebody is there."""
    answering = any(pods.is_ready(each.pod) for each in observed.of_role(Role.BASE))
    service = observed.child("Service", Role.BASE) or {}
    address = service.get("spec", {}).get("clusterIP")
    if not (answering and address and observed.deployment.spec.base_replicas):
        return None
    return f"{address}:80" if ":" not in address else f"[{address}]:80"


# --- merged weights ------------------------------------------------------------------------------


def _merged(
    observed: Observed, selection: Selection, choice: merging.Choice, now: datetime
) -> Decision:
    """One adapter, part of the weights. A new version rolls the pods once it is merged."""
    deployment = observed.deployment
    selection = at_most(1, selection, deployment, *ONE_ONLY)
    merges = {
        each.version: errands.errand(
            each,
            errands.Purpose.MERGE,
            observed.jobs_of_ours,
            observed.job_pods,
            done=_is_merged(observed, each),
        )
        for each in selection.candidates()
    }
    evidence = Evidence(lambda each: merges[each.version].done, {}, now)
    rules = deployment.spec.adapters.model_copy(update={"canary": None, "keep_versions": 0})
    versions = rollout.versions(selection.served, rules, deployment.status.adapters, evidence)
    waiting = [
        merges[each.candidate.version]
        for each in versions
        if each.loaded and not merges[each.candidate.version].done
    ]
    servers = [
        _merged_server(observed, each)
        for each in versions
        if each.state is VersionState.PROMOTED and merges[each.candidate.version].done
    ]
    if waiting and not servers and runs_beside_the_base(observed):
        # Until the merge is done the server goes on as it is, with what may be served by now.
        return replace(_beside_the_base(observed, selection, choice, now), merges=waiting)
    servers += _base_server(observed)
    return Decision(selection, choice, versions, servers, merges=waiting)


def runs_beside_the_base(observed: Observed) -> bool:
    """Whether the running server holds adapters: merged weights have a ConfigMap by version."""
    running = observed.child("Deployment", Role.ADAPTERS)
    return config_map_of(running) == child_name(observed.deployment)


def _is_merged(observed: Observed, candidate: Candidate) -> bool:
    """Whether replicas serve the version already: its merge is done, whatever became of the Job."""
    in_use = observed.children.get(("ConfigMap", merged_config_map(observed.deployment, candidate)))
    options = (in_use or {}).get("data", {}).get(SERVER_FILE)
    return options_model(options) == merging.merged_path(candidate) and any(
        pods.is_ready(each.pod) and each.serves_as_base(candidate.model)
        for each in observed.of_role(Role.ADAPTERS)
    )


def merged_config_map(deployment: AdapterDeployment, candidate: Candidate) -> str:
    """Pods of the version before keep their own files until they are replaced."""
    return f"{child_name(deployment)}-{candidate.version}"


def _merged_server(observed: Observed, version: Version) -> ServerPlan:
    deployment, candidate = observed.deployment, version.candidate
    options = with_merged_model(
        server_options(deployment), merging.merged_path(candidate), candidate.model
    )
    server = ServerPlan(
        role=Role.ADAPTERS,
        config_map=merged_config_map(deployment, candidate),
        options=options_text(options),
        desired=base_state(deployment, candidate.model, [version]),
        replicas=deployment.spec.replicas,
        mounts=[mount(merging.merged_uri(candidate))],
        merged=candidate.model,
    )
    return keeping_claims(server, observed.child("Deployment", Role.ADAPTERS))


def traffic(replicas: list[Replica]) -> dict[str, Traffic]:
    """What all proxies counted, by version."""
    total: dict[str, Traffic] = {}
    for each in replicas:
        for model, counted in (each.report.traffic if each.report else {}).items():
            before = total.get(model, Traffic())
            total[model] = Traffic(
                requests=before.requests + counted.requests,
                errors=before.errors + counted.errors,
                in_flight=before.in_flight + counted.in_flight,
                seconds=before.seconds + counted.seconds,
            )
    return total
