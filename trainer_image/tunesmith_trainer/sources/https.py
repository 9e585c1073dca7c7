"""A file behind an https address: streamed to scratch, bounded, and only with the right digest."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.credentials import HTTPS_AUTHORIZATION, credential
from tunesmith.api.trainer_contract import PlannedSource, Reason

from tunesmith_trainer.failure import TrainerError, first_line
from tunesmith_trainer.sources.digest import other_digest
from tunesmith_trainer.sources.downloads import downloads_folder, no_room, room, whole

if TYPE_CHECKING:
    from typing import BinaryIO

    import httpx

log = logging.getLogger(__name__)

#: Pauses in seconds before each further attempt.
PAUSES = (1.0, 2.0, 4.0, 8.0)
REDIRECTS = 5
CONNECT_SECONDS = 10
READ_SECONDS = 60


class TryAgainError(Exception):
    """The server or the connection failed in a way that may pass."""


def download(source: PlannedSource, missing: Reason, changed: Reason) -> Path:
    """The file, which has the digest that the plan names.

    Raises TrainerError: ``missing`` if there is no such file, ``changed`` if it has another digest.
    """
    if source.content_digest is None:
        raise TrainerError(changed, f"{source.uri} has no digest: name one, as https:// needs it")
    folder = downloads_folder(f"{source.uri} {source.content_digest}")
    path = folder / source.uri.rpartition("/")[2]
    if not path.exists():
        log.info("downloading %s", source.uri)
        with whole(path) as partial:
            found = Transfer(source, missing).into(partial)
            if found != source.content_digest:
                raise other_digest(source, changed, found)
    return path


class Transfer:
    """One download over several connections: a broken one is taken up where it ended."""

    def __init__(self, source: PlannedSource, missing: Reason) -> None:
        self.source = source
        self.missing = missing
        self.etag: str | None = None
        self.total = hashlib.sha256()
        self.received = 0
        self.limit = room()

    def into(self, path: Path) -> str:
        """Fill the file; gives its digest."""
        with path.open("wb") as file:
            for pause in (*PAUSES, None):
                try:
                    self._attempt(file)
                    return f"sha256:{self.total.hexdigest()}"
                except TryAgainError as error:
                    if pause is None:
                        raise self._unreachable(str(error)) from error
                    log.warning("%s: %s; again in %.0f s", self.source.uri, error, pause)
                    time.sleep(pause)
        raise AssertionError("unreachable")

    def _attempt(self, file: BinaryIO) -> None:
        import httpx

        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        try:
            with httpx.Client(timeout=timeout) as client:
                response = self._answer(client)
                try:
                    self._receive(response, file)
                finally:
                    response.close()
        except httpx.HTTPError as error:
            raise TryAgainError(first_line(error)) from error

    def _answer(self, client: httpx.Client) -> httpx.Response:
        """The response with the file, after redirects to https and nothing else."""
        request = client.build_request("GET", self.source.uri, headers=self._headers())
        for _ in range(REDIRECTS + 1):
            response = client.send(request, stream=True)
            if response.next_request is None:
                return response
            response.close()
            request = response.next_request
            if request.url.scheme != "https":
                raise self._unreachable(f"redirected to {request.url.scheme}://, which is refused")
        raise self._unreachable(f"redirected more than {REDIRECTS} times")

    def _headers(self) -> dict[str, str]:
        # Compressed on the way, the bytes would not be those that the digest is about.
        headers = {"Accept-Encoding": "identity"}
        if authorization := credential(os.environ, self.source.credentials, HTTPS_AUTHORIZATION):
            headers["Authorization"] = authorization
        if self.received and self.etag:
            headers |= {"Range": f"bytes={self.received}-", "If-Range": self.etag}
        return headers

    def _receive(self, response: httpx.Response, file: BinaryIO) -> None:
        self._require_success(response.status_code)
        if response.status_code != 206:
            file.seek(0)
            file.truncate()
            self.total, self.received = hashlib.sha256(), 0
        etag = response.headers.get("ETag", "")
        self.etag = etag if etag.startswith('"') else None
        self._require_room(int(response.headers.get("Content-Length", 0)))
        # As it comes: what httpx gathers into blocks is lost when the connection breaks.
        for block in response.iter_raw():
            self._require_room(len(block))
            file.write(block)
            self.total.update(block)
            self.received += len(block)

    def _require_success(self, status: int) -> None:
        match status:
            case 200 | 206:
                return
            case 401 | 403:
                raise self._unreachable(
                    f"the server answers {status}; name a Secret with {HTTPS_AUTHORIZATION} in "
                    "secretRef"
                )
            case 404 | 410:
                raise TrainerError(
                    self.missing, f"{self.source.uri} does not exist ({status}): correct the uri"
                )
            case _ if status == 429 or status >= 500:
                raise TryAgainError(f"the server answers {status}")
            case _:
                raise self._unreachable(f"the server answers {status}")

    def _require_room(self, more: int) -> None:
        if self.received + more > self.limit:
            raise no_room(self.source.uri, f"more than {self.limit / 1e9:.1f} GB", self.limit)

    def _unreachable(self, said: str) -> TrainerError:
        return TrainerError(
            Reason.SOURCE_UNREACHABLE,
            f"{self.source.uri} cannot be fetched ({said}): check the uri, and that pods may "
            "connect to the server",
        )
