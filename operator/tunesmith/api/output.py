"""Where an adapter or a model goes: a folder, and if wanted a registry, too."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesmith.api.locations import (
    OCI_PATTERN,
    PVC_FOLDER_PATTERN,
    S3_FOLDER_PATTERN,
    any_of,
)
from tunesmith.api.objects import (
    NO_PARENT,
    SECRET_RULE,
    SecretReference,
)
from tunesmith.api.schema import ApiModel, rule, rules


class OciTarget(ApiModel):
    """A registry that gets the finished adapter, too."""

    reference: str = Field(
        max_length=512,
        description=(
            "Where the adapter is pushed as an OCI artifact: REGISTRY[:PORT]/REPOSITORY:TAG. "
            "status.artifact.ociDigest names what was pushed."
        ),
        json_schema_extra=rules(
            rule(
                f"self.matches('{OCI_PATTERN}')",
                "output.oci.reference must be REGISTRY[:PORT]/REPOSITORY:TAG, for example "
                "registry.example.com/team/triage:v1",
            )
        ),
    )
    secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Secret with the keys OCI_USERNAME and OCI_PASSWORD. They are handed to the pod as "
            "environment variables; the operator never reads them."
        ),
    )
    insecure: bool = Field(
        default=False, description="Speak http to the registry: for one inside the cluster."
    )


#: Short enough for what is stored below it, and for the uris of its parts.
OutputUri = Annotated[str, Field(min_length=1, max_length=200)]


class OutputStore(ApiModel):
    """A store for adapters, and what opens it."""

    uri: OutputUri = Field(
        description=(
            "Folder for adapters: pvc://CLAIM[/FOLDER], or s3://BUCKET[/FOLDER] in any "
            "S3-compatible store. The adapter gets a folder of its own below it, named after this "
            "job and the adapter's digest. An AdapterDeployment serves adapters from claims only."
        ),
        json_schema_extra=rules(
            rule(
                any_of(PVC_FOLDER_PATTERN, S3_FOLDER_PATTERN),
                "output.uri must be pvc://CLAIM[/FOLDER] or s3://BUCKET[/FOLDER], for example "
                "pvc://adapters",
            ),
            NO_PARENT,
        ),
    )
    secret_ref: SecretReference | None = Field(
        default=None,
        description=(
            "Secret that opens the bucket: keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and "
            "if needed AWS_SESSION_TOKEN, AWS_ENDPOINT_URL and AWS_REGION."
        ),
    )

    cel_rules = (SECRET_RULE,)


class Output(OutputStore):
    """Where the adapter goes."""

    oci: OciTarget | None = Field(
        default=None, description="A registry that gets the finished adapter, too."
    )
