"""An artifact as an OCI artifact: a blob for each file, named by its title, as `oras pull` reads.

https://github.com/opencontainers/image-spec/blob/v1.1.1/manifest.md, "Guidelines for Artifact
Usage". The same folder gives the same manifest, and so the same digest.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from tunesmith.api.job_status import Artifact, ArtifactKind
from tunesmith.api.trainer_contract import PlannedRegistry

from tunesmith_trainer.output.registry import Blob, Registry

log = logging.getLogger(__name__)

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPES = {
    ArtifactKind.ADAPTER: "application/vnd.tunesmith.adapter.v1",
    ArtifactKind.MODEL: "application/vnd.tunesmith.model.v1",
}
CONFIG_TYPE = "application/vnd.tunesmith.artifact.config.v1+json"
FILE_TYPES = {
    ".safetensors": "application/vnd.safetensors",
    ".json": "application/json",
    ".html": "text/html",
}
OTHER_FILE_TYPE = "application/octet-stream"
TITLE = "org.opencontainers.image.title"


def pushed(artifact: Artifact, folder: Path, target: PlannedRegistry) -> Artifact:
    """Push the artifact's files; gives the artifact with where they went.

    Raises TrainerError(REGISTRY_UNREACHABLE).
    """
    registry = Registry(target)
    log.info("pushing %s to %s", artifact.uri, target.reference)
    config = json_blob(
        {
            "digest": artifact.digest,
            "baseModelDigest": artifact.base_model_digest,
            **({"rank": artifact.rank} if artifact.rank else {}),
        }
    )
    files = {path.name: path for path in folder.iterdir() if path.is_file()}
    layers = []
    for name in sorted(files):
        blob = Blob.of_file(files[name])
        registry.upload(blob)
        media_type = FILE_TYPES.get(files[name].suffix, OTHER_FILE_TYPE)
        layers.append({**descriptor(blob, media_type), "annotations": {TITLE: name}})
    registry.upload(config)
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPES[artifact.kind],
            "config": descriptor(config, CONFIG_TYPE),
            "layers": layers,
            "annotations": {"dev.tunesmith.digest": artifact.digest},
        }
    )
    registry.tag_manifest(manifest, MANIFEST_TYPE)
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    return artifact.model_copy(update={"oci_reference": target.reference, "oci_digest": digest})


def descriptor(blob: Blob, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def json_blob(value: dict[str, Any]) -> Blob:
    content = canonical(value)
    return Blob(f"sha256:{hashlib.sha256(content).hexdigest()}", len(content), lambda: content)


def canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
