"""Which adapters may be served: passed for exactly that digest, and of this base. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from tunesmith.api.adapter_selection import GateRule, NamedAdapter
from tunesmith.api.adapterdeployment import AdapterDeployment
from tunesmith.api.evalrun import EvalRun
from tunesmith.api.finetunejob import FineTuneJob
from tunesmith.api.job_status import ArtifactKind
from tunesmith.api.locations import Scheme, parse_location
from tunesmith.api.reasons import NotServedReason
from tunesmith.api.serving_status import RejectedAdapter, VersionState
from tunesmith.api.verdict import Verdict
from tunesmith.kube.conditions import find, is_true
from tunesmith.kube.volumes import path_in_pod

#: Hexadecimal digits of the digest that name a version.
VERSION_LENGTH = 12


@dataclass(frozen=True)
class Candidate:
    """One version of an adapter that may be served."""

    name: str
    uri: str
    digest: str
    gate: GateRule = GateRule.PASSED
    rank: int | None = None
    job: str | None = None
    evaluated_by: str | None = None
    base_model_digest: str | None = None

    @property
    def version(self) -> str:
        return self.digest.removeprefix("sha256:")[:VERSION_LENGTH]

    @property
    def place(self) -> str:
        """Names the folder."""
        return hashlib.sha256(self.uri.encode()).hexdigest()[:VERSION_LENGTH]

    @property
    def model(self) -> str:
        """The name that vLLM knows it by; it stands for these files and no others."""
        return f"{self.name}@{self.version}"

    @property
    def path(self) -> str:
        """The folder inside the pod."""
        found = path_in_pod(parse_location(self.uri))
        assert found is not None, f"adapters lie on claims, not in {self.uri}"
        return found


@dataclass(frozen=True)
class Selection:
    """What was chosen, by what may be served and what not."""

    #: By name; the versions of a name from the oldest to the newest.
    served: dict[str, list[Candidate]]
    rejected: list[RejectedAdapter]

    def candidates(self) -> list[Candidate]:
        return [each for versions in self.served.values() for each in versions]


def select(
    deployment: AdapterDeployment,
    jobs: Iterable[FineTuneJob],
    runs: Iterable[EvalRun] = (),
    deleted: AbstractSet[tuple[str, str]] = frozenset(),
) -> Selection:
    """Judge every job that the selector chose, and every adapter that is named.

    ``deleted`` are version and place of those whose files are gone, or will be.
    """
    judged: list[Candidate | RejectedAdapter] = [
        _judge_job(deployment, job) for job in sorted(jobs, key=_age)
    ]
    verdicts = list(runs)
    judged += [_judge_named(deployment, each, verdicts) for each in deployment.spec.adapters.named]
    served: dict[str, dict[str, Candidate]] = {}
    rejected, gone = [], []
    for each in judged:
        match each:
            case Candidate() if (each.version, each.place) in deleted:
                gone.append(_rejected(each.job or each.name, *FILES_DELETED))
            case Candidate():
                # The same files under the same name are one version, whoever brings them later.
                served.setdefault(each.name, {}).setdefault(each.digest, each)
            case RejectedAdapter():
                rejected.append(each)
    chosen = {name: list(versions.values()) for name, versions in sorted(served.items())}
    return Selection(chosen, [*rejected, *gone])


def at_most(
    most: int, selection: Selection, deployment: AdapterDeployment, reason: str, message: str
) -> Selection:
    """So many names: those that are served already, and then the first by name. ``message`` has a
    place for them."""
    promoted = {
        each.name for each in deployment.status.adapters if each.state is VersionState.PROMOTED
    }
    names = sorted(selection.served, key=lambda name: (name not in promoted, name))
    told = message.format(", ".join(names[:most]))
    others = [RejectedAdapter(name=each, reason=reason, message=told) for each in names[most:]]
    # In the order in which they were: what is written from them stays the same.
    kept = set(names[:most])
    served = {name: each for name, each in selection.served.items() if name in kept}
    return Selection(served, [*others, *selection.rejected])


def base_model_name(deployment: AdapterDeployment) -> str:
    """The name under which the base answers: given, or the last part of the model's uri."""
    location = parse_location(deployment.spec.base_model.uri)
    last = (location.path or location.holder).rsplit("/", 1)[-1]
    return deployment.spec.served_model_name or last


def selector_labels(deployment: AdapterDeployment) -> dict[str, str] | None:
    """Labels of the jobs that are served; None for none."""
    adapters = deployment.spec.adapters
    if adapters.selector is not None:
        return adapters.selector.match_labels
    return None if adapters.named else {}


def _age(job: FineTuneJob) -> tuple[str, str]:
    return (job.metadata.creation_timestamp or "", job.metadata.name)


def _judge_job(deployment: AdapterDeployment, job: FineTuneJob) -> Candidate | RejectedAdapter:
    name, artifact, evaluation = job.metadata.name, job.status.artifact, job.status.evaluation
    served_name = job.spec.adapter_name or name
    if job.metadata.deletion_timestamp:
        return _rejected(name, NotServedReason.BEING_DELETED, "The job is being deleted.")
    if job.spec.base_model.uri != deployment.spec.base_model.uri:
        return _rejected(name, NotServedReason.OTHER_BASE_MODEL, _other_base_model(deployment, job))
    if artifact and artifact.kind is ArtifactKind.MODEL:
        message = (
            f"The job made a model, and this deployment serves adapters only: serve {artifact.uri} "
            "as baseModel.uri of another AdapterDeployment."
        )
        return _rejected(name, NotServedReason.NOT_AN_ADAPTER, message)
    if served_name == base_model_name(deployment):
        return _rejected(name, NotServedReason.NAME_TAKEN, NAME_TAKEN)
    if job.output and parse_location(job.output.uri).scheme is not Scheme.PVC:
        return _rejected(name, NotServedReason.NOT_ON_CLAIM, _not_on_claim(job, job.output.uri))
    passed = (
        artifact
        and evaluation
        and evaluation.verdict is Verdict.PASSED
        and evaluation.adapter_digest == artifact.digest
        and is_true(job.status.conditions, "Ready")
    )
    if not passed or not artifact or not evaluation:
        ready = find(job.status.conditions, "Ready")
        return _rejected(
            name,
            ready.reason if ready else NotServedReason.NOT_TRAINED,
            ready.message if ready else "The job has not begun.",
        )
    return Candidate(
        name=served_name,
        uri=artifact.uri,
        digest=artifact.digest,
        rank=artifact.rank,
        job=name,
        evaluated_by=evaluation.name,
        base_model_digest=artifact.base_model_digest,
    )


def _other_base_model(deployment: AdapterDeployment, job: FineTuneJob) -> str:
    tuned, served = job.spec.base_model.uri, deployment.spec.base_model.uri
    message = f"The job tunes {tuned}; this deployment serves {served}."
    if parse_location(tuned).scheme not in {Scheme.S3, Scheme.HTTPS}:
        return message
    return (
        f"{message} A model is served from a claim or from the hub: train on the uri that is "
        "served, or name the adapter in adapters.named."
    )


def _not_on_claim(job: FineTuneJob, output: str) -> str:
    digest = f" with digest {job.status.artifact.digest}" if job.status.artifact else ""
    return (
        f"The job's output is {output}, and adapters are served from claims: copy the "
        "adapter's folder to a claim of this namespace and name it in adapters.named with its "
        f"pvc:// uri{digest}, or train with a pvc:// output."
    )


FILES_DELETED = (
    NotServedReason.FILES_DELETED,
    "It was superseded, and deleteFiles has its files deleted: train it again, or name a copy of "
    "its folder in adapters.named.",
)
NAME_TAKEN = "The base model is served under that name: set servedModelName to another one."


def _judge_named(
    deployment: AdapterDeployment, named: NamedAdapter, runs: list[EvalRun]
) -> Candidate | RejectedAdapter:
    if named.name == base_model_name(deployment):
        return _rejected(named.name, NotServedReason.NAME_TAKEN, NAME_TAKEN)
    candidate = Candidate(named.name, named.uri, named.digest, named.gate)
    if named.gate is GateRule.NONE:
        return candidate
    for run in runs:
        if _passed(run, deployment, named.digest):
            return Candidate(
                named.name,
                named.uri,
                named.digest,
                evaluated_by=run.metadata.name,
                base_model_digest=run.status.base_model_digest,
            )
    message = (
        f"No EvalRun of this namespace has given {candidate.digest[:19]}… the verdict Passed on "
        f"{deployment.spec.base_model.uri}. Apply one, or set gate: None to serve it unjudged."
    )
    return _rejected(named.name, NotServedReason.NOT_EVALUATED, message)


def _passed(run: EvalRun, deployment: AdapterDeployment, digest: str) -> bool:
    return (
        run.status.verdict is Verdict.PASSED
        and run.status.adapter_digest == digest
        and run.spec.base_model.uri == deployment.spec.base_model.uri
        and not run.metadata.deletion_timestamp
    )


def _rejected(name: str, reason: str, message: str) -> RejectedAdapter:
    return RejectedAdapter(name=name, reason=reason, message=message[:1024])
