"""The base model's files as this pod sees them: read once, as soon as they are there."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from tunesmith.api.digests import base_model_digest, weight_files
from tunesmith.api.reasons import RefusalReason
from tunesmith.api.serving_contract import DesiredAdapter, ServedBase
from tunesmith.sidecar.base_model import BaseModel, BaseModelUnreadable
from tunesmith.sidecar.refusal import Refused

log = logging.getLogger(__name__)


class BaseFiles:
    """Shapes and digest of the base model; only what is asked for is read."""

    def __init__(self, digests: dict[str, str] | None = None) -> None:
        #: Digests found by an earlier process: signature of the files → digest.
        self._digests = {} if digests is None else digests
        #: Whether they were tried to be read.
        self.looked_for = False
        self.model: BaseModel | None = None
        self._lock = asyncio.Lock()

    async def read(self, base: ServedBase) -> BaseModel | None:
        """What the base looks like; None while its files are not there."""
        async with self._lock:
            folder = folder_of(base)
            if self.model is None and folder is not None:
                try:
                    self.model = await asyncio.to_thread(BaseModel.read, folder)
                except BaseModelUnreadable as error:
                    log.warning("%s", error)
            self.looked_for = True
            return self.model

    async def require(self, base: ServedBase, adapter: DesiredAdapter) -> None:
        """Raises Refused when the adapter's verdict is about another base model.

        Hub repositories are told apart by name and revision, not by what was downloaded.
        """
        wanted = adapter.base_model_digest
        if wanted is None or base.path is None:
            return
        async with self._lock:
            found = await asyncio.to_thread(self._digest_of, Path(base.path))
        if found != wanted:
            raise Refused(
                RefusalReason.WRONG_BASE_MODEL,
                f"{adapter.model} was judged on the base model {wanted[:19]}…, this one is "
                f"{found[:19]}…: serve it with the base model that it was trained on, or "
                "train and evaluate it again",
            )

    def _digest_of(self, folder: Path) -> str:
        """Reads all weights, once for each state of the files."""
        files = weight_files(folder)
        stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        signature = f"{folder} {stamps}"
        if signature not in self._digests:
            self._digests[signature] = base_model_digest(folder)
        return self._digests[signature]


def folder_of(base: ServedBase) -> Path | None:
    """Where the files are: a path, or vLLM's download once it has begun."""
    if base.path:
        return Path(base.path)
    snapshots = Path(base.hub_folder or "/nonexistent").glob("snapshots/*/config.json")
    return max((each.parent for each in snapshots), default=None)
