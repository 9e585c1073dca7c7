"""Which adapters an AdapterDeployment serves, and how a new version takes over."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from tunesmith.api.locations import PVC_PATTERN
from tunesmith.api.objects import NO_PARENT, SERVED_NAME, Labels, Name, Uri
from tunesmith.api.schema import ApiModel, between, rule, rules


class LabelSelector(ApiModel):
    """Chooses FineTuneJobs by their labels."""

    match_labels: Labels = Field(
        default_factory=dict,
        description="Labels that a FineTuneJob must carry. Empty chooses all of this namespace.",
    )


class GateRule(StrEnum):
    """What must have happened before an adapter is served."""

    PASSED = "Passed"
    NONE = "None"


class NamedAdapter(ApiModel):
    """An adapter that no FineTuneJob of this namespace made, or not the one wanted."""

    name: str = Field(
        max_length=63,
        description="Name to put into a request's model field. Several entries with one name are "
        "versions of it; the last is the newest.",
        json_schema_extra=rules(
            rule(
                f"self.matches('{SERVED_NAME}')",
                "an adapter's name may hold letters, digits, '-', '_' and '.'",
            )
        ),
    )
    uri: Uri = Field(
        description="Folder of the adapter: pvc://CLAIM/FOLDER.",
        json_schema_extra=rules(
            rule(f"self.matches('{PVC_PATTERN}')", "an adapter's uri must be pvc://CLAIM/FOLDER"),
            NO_PARENT,
        ),
    )
    digest: str = Field(
        max_length=71,
        description="sha256 over its files, as `sha256sum adapter_config.json "
        "adapter_model.safetensors | sha256sum` prints it, after 'sha256:'.",
        json_schema_extra=rules(
            rule(
                "self.matches('^sha256:[0-9a-f]{64}$')",
                "digest must be sha256: and 64 hexadecimal digits, as a job's status shows it",
            )
        ),
    )
    gate: GateRule = Field(
        default=GateRule.PASSED,
        description="Passed: some EvalRun of this namespace gave exactly this digest the verdict "
        "Passed, for this base model. None: it is served unjudged, and status says so.",
    )


class Canary(ApiModel):
    """A new version first gets a part of the requests."""

    weight: int = Field(
        default=10,
        description="Percent of the requests to the name that the new version answers.",
        json_schema_extra=between(1, 99, "canary.weight"),
    )
    minutes: float = Field(
        default=10,
        description="How long, before it is promoted or rolled back.",
        json_schema_extra=between(0.05, 10080, "canary.minutes"),
    )
    max_error_percent: float = Field(
        default=1,
        description="It is rolled back when the share of its requests that end in an error is "
        "higher than that of the promoted version by more than this.",
        json_schema_extra=between(0, 100, "canary.maxErrorPercent"),
    )


class Pin(ApiModel):
    """Holds a name at one version: to roll back, or to promote at once."""

    name: str = Field(max_length=63, description="The served name.")
    version: str = Field(
        max_length=12,
        description="The version that answers, as status.adapters shows it.",
        json_schema_extra=rules(
            rule(
                "self.matches('^[0-9a-f]{12}$')",
                "version must be the 12 hexadecimal digits that status.adapters shows",
            )
        ),
    )


class AdapterSelection(ApiModel):
    """Which adapters are served, and how a new version takes over."""

    selector: LabelSelector | None = Field(
        default=None,
        description=(
            "FineTuneJobs of the same base model whose adapters are served. An adapter joins when "
            "its job is Ready: trained, and passed for exactly that digest. Default: all of this "
            "namespace, or none when adapters are named."
        ),
    )
    named: list[NamedAdapter] = Field(
        default_factory=list,
        max_length=1000,
        description="Adapters by uri and digest.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name", "digest"],
        },
    )
    claims: list[Name] = Field(
        default_factory=list,
        max_length=16,
        description="PersistentVolumeClaims that the pods mount from their start, so that an "
        "adapter that comes to lie on one joins without rolling them. Claims of adapters, and of "
        "jobs that are being trained, are mounted in any case.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    canary: Canary | None = Field(
        default=None, description="Default: a new version takes over once all replicas have it."
    )
    pins: list[Pin] = Field(
        default_factory=list,
        max_length=1000,
        description="Names held at one version.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    keep_versions: int = Field(
        default=1,
        description="Superseded versions of a name that stay loaded, to be asked as name@version "
        "and to be pinned without waiting.",
        json_schema_extra=between(0, 10, "keepVersions"),
    )
    delete_files: bool = Field(
        default=False,
        description="Delete the folder of a version that was superseded and is kept no longer, "
        "once all replicas have unloaded it and no other AdapterDeployment here serves it. "
        "What was only deselected is left alone.",
    )
