"""What the sidecar has found out and need not find out again when it is restarted.

Every fact is bound to what it was found on: files by size, time and inode, proofs by the start of
vLLM. What no longer fits is simply unknown, and looked at again.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from tunesmith.api.digests import ADAPTER_FILES
from tunesmith.api.serving_contract import DesiredAdapter
from tunesmith.sidecar.start_file import write_whole


class Memory(BaseModel):
    """Facts about versions, and about the present start of vLLM."""

    #: Versions that passed pre-flight: model → signature of what was examined.
    passed: dict[str, str] = Field(default_factory=dict)
    #: Digests of base models: signature of the files → digest.
    base_digests: dict[str, str] = Field(default_factory=dict)
    #: Which start of vLLM the rest is about.
    start: int = 0
    #: Whether it has answered.
    was_up: bool = False
    #: Whether every version was proven or set back once: the pod may be sent requests.
    complete: bool = False
    #: Whether vLLM is to start without adapters, because it ended when it started with them.
    bare: bool = False
    #: Versions that were seen to change the answers: model → path.
    proven: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def recall(cls, file: Path) -> Memory:
        """What an earlier process of this pod wrote, or nothing."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return cls()

    def keep(self, file: Path) -> None:
        write_whole(file, self.model_dump_json())


def signature(adapter: DesiredAdapter, max_rank: int) -> str:
    """Changes when the files do, or what they are compared with."""
    parts = [adapter.path, adapter.digest, adapter.base_model_digest or "", str(max_rank)]
    for name in ADAPTER_FILES:
        try:
            found = (Path(adapter.path) / name).stat()
            parts.append(f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}")
        except OSError:
            parts.append("missing")
    return "|".join(parts)
