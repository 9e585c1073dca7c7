"""The base model's files as this pod sees them: read once, as soon as they are there."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from tunesmith.api.digests import MODEL_CONFIG, base_model_digest, weight_files
from tunesmith.api.quoting import quoted
from tunesmith.api.reasons import RefusalReason
from tunesmith.api.serving_contract import DesiredAdapter, ServedBase
from tunesmith.api.trainer_contract import CLAIMS_FOLDER
from tunesmith.sidecar.base_model import BaseModel, BaseModelUnreadable
from tunesmith.sidecar.refusal import Refused

log = logging.getLogger(__name__)


class BaseFiles:
    """Shapes and digest of the base model; only what is asked for is read."""

    def __init__(self, digests: dict[str, str] | None = None, claims: Path | None = None) -> None:
        #: What a base model on a claim must not leave.
        self._claims = Path(CLAIMS_FOLDER) if claims is None else claims
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
                    self.model = await asyncio.to_thread(self._shapes_of, base, folder)
                except (BaseModelUnreadable, Refused) as error:
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

    def _shapes_of(self, base: ServedBase, folder: Path) -> BaseModel:
        if base.path:
            self._require_plain_files(folder)
        return BaseModel.read(folder)

    def _digest_of(self, folder: Path) -> str:
        """Reads all weights, once for each state of the files."""
        files = weight_files(folder)
        self._require_plain_files(folder)
        stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        signature = f"{folder} {stamps}"
        if signature not in self._digests:
            self._digests[signature] = base_model_digest(folder)
        return self._digests[signature]

    def _require_plain_files(self, folder: Path) -> None:
        """Of a folder's own claim. What is on none is a world of its own."""
        root = folder
        if folder.is_relative_to(self._claims):
            root = self._claims.joinpath(*folder.relative_to(self._claims).parts[:1])
        for file in (folder / MODEL_CONFIG, *weight_files(folder)):
            require_plain(file, root)


def require_plain(file: Path, root: Path) -> None:
    """Raises Refused for what keeps its reader waiting for ever, or is none of the claim's.

    The hub's cache has links, to files beside it.
    """
    try:
        target = file.resolve(strict=True)
    except FileNotFoundError:
        # Whoever reads it says so.
        return
    except (OSError, RuntimeError) as error:
        # RuntimeError: links in a circle.
        raise unknown_base(file, "cannot be read") from error
    if not target.is_relative_to(root.resolve()):
        raise unknown_base(file, f"is a link that leads out of {root}")
    if not target.is_file():
        raise unknown_base(file, "is a pipe, a device or a folder")


def unknown_base(file: Path, what: str) -> Refused:
    return Refused(
        RefusalReason.WRONG_BASE_MODEL,
        f"{quoted(str(file))} {what}, so that nobody can tell whether this is the base model that "
        "the adapter was judged on: put the file itself there",
    )


def folder_of(base: ServedBase) -> Path | None:
    """Where the files are: a path, or vLLM's download once it has begun."""
    if base.path:
        return Path(base.path)
    snapshots = Path(base.hub_folder or "/nonexistent").glob("snapshots/*/config.json")
    return max((each.parent for each in snapshots), default=None)
