"""An OCI registry, spoken to by its HTTP interface.

https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md; tokens as in
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from tunesmith.api.credentials import OCI_PASSWORD, OCI_USERNAME, credential
from tunesmith.api.digests import file_digest
from tunesmith.api.trainer_contract import PlannedRegistry, Reason

from tunesmith_trainer.failure import TrainerError, first_line

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

#: Pauses in seconds before each further attempt.
PAUSES = (1.0, 2.0, 4.0, 8.0)
CONNECT_SECONDS = 10
TRANSFER_SECONDS = 120
BLOCK_BYTES = 1024 * 1024
#: Where a registry answers under another name than references have.
HOSTS = {"docker.io": "registry-1.docker.io"}

Content = Callable[[], bytes | Iterator[bytes]]


class TryAgainError(Exception):
    """The registry or the connection failed in a way that may pass."""


@dataclass(frozen=True)
class Blob:
    """Content by digest, as a manifest refers to it."""

    digest: str
    size: int
    content: Content

    @classmethod
    def of_file(cls, path: Path) -> Blob:
        return cls(f"sha256:{file_digest(path)}", path.stat().st_size, lambda: blocks(path))


def blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


class Registry:
    """One repository of a registry, and the tag that a reference names.

    Every method raises TrainerError(REGISTRY_UNREACHABLE) when the registry says no for good.
    """

    def __init__(self, target: PlannedRegistry) -> None:
        import httpx

        self.reference = target.reference
        host, _, path = target.reference.partition("/")
        self.repository, _, self.tag = path.rpartition(":")
        scheme = "http" if target.insecure else "https"
        self.root = f"{scheme}://{HOSTS.get(host, host)}/v2/"
        self.username = credential(os.environ, target.credentials, OCI_USERNAME)
        self.password = credential(os.environ, target.credentials, OCI_PASSWORD)
        self.authorization: str | None = None
        timeout = httpx.Timeout(TRANSFER_SECONDS, connect=CONNECT_SECONDS)
        self.client = httpx.Client(timeout=timeout)

    def upload(self, blob: Blob) -> None:
        """Put a blob there, unless it is there already."""
        self._retried(lambda: self._upload(blob))

    def tag_manifest(self, manifest: bytes, media_type: str) -> None:
        """Put the manifest there and let the tag point to it."""
        url = self._url(f"manifests/{self.tag}")
        headers = {"Content-Type": media_type}
        self._retried(lambda: self._send("PUT", url, lambda: manifest, headers))

    def _upload(self, blob: Blob) -> None:
        found = self._send("HEAD", self._url(f"blobs/{blob.digest}"), missing_is_fine=True)
        if found.status_code == 200:
            return
        begun = self._send("POST", self._url("blobs/uploads/"))
        place = urljoin(self.root, begun.headers["Location"])
        separator = "&" if urlsplit(place).query else "?"
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(blob.size),
        }
        self._send("PUT", f"{place}{separator}digest={blob.digest}", blob.content, headers)

    def _url(self, path: str) -> str:
        return f"{self.root}{self.repository}/{path}"

    def _retried(self, action: Callable[[], object]) -> None:
        for pause in (*PAUSES, None):
            try:
                action()
                return
            except TryAgainError as error:
                if pause is None:
                    raise self._unreachable(str(error)) from error
                log.warning("%s: %s; again in %.0f s", self.reference, error, pause)
                time.sleep(pause)

    def _send(
        self,
        method: str,
        url: str,
        content: Content | None = None,
        headers: dict[str, str] | None = None,
        *,
        missing_is_fine: bool = False,
    ) -> httpx.Response:
        """One request, and once more with what opens the registry if it asks for that."""
        response = self._once(method, url, content, headers)
        if response.status_code == 401 and self._authenticate(response):
            response = self._once(method, url, content, headers)
        status = response.status_code
        if status < 300 or (status == 404 and missing_is_fine):
            return response
        if status == 429 or status >= 500:
            raise TryAgainError(f"the registry answers {status}")
        raise self._refused(response)

    def _once(
        self, method: str, url: str, content: Content | None, headers: dict[str, str] | None
    ) -> httpx.Response:
        import httpx

        own = urlsplit(url).netloc == urlsplit(self.root).netloc
        # A registry may name another server for its uploads, which must not see this.
        authorization = {"Authorization": self.authorization} if own and self.authorization else {}
        try:
            return self.client.request(
                method,
                url,
                content=content() if content else None,
                headers={**(headers or {}), **authorization},
            )
        except httpx.HTTPError as error:
            raise TryAgainError(first_line(error)) from error

    def _authenticate(self, response: httpx.Response) -> bool:
        """Get what opens the registry, as it asks for it; whether there is anything new to try."""
        before = self.authorization
        challenge = response.headers.get("WWW-Authenticate", "")
        kind = challenge.partition(" ")[0].lower()
        if kind == "bearer":
            self.authorization = self._token(dict(re.findall(r'(\w+)="([^"]*)"', challenge)))
        elif kind == "basic" and self.username and self.password:
            self.authorization = self._basic()
        return self.authorization not in (None, before)

    def _basic(self) -> str:
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def _token(self, challenge: dict[str, str]) -> str | None:
        import httpx

        realm = challenge.get("realm", "")
        if urlsplit(realm).scheme != "https" and not self.root.startswith("http://"):
            raise self._unreachable("it wants its password sent without encryption")
        parameters = {"scope": f"repository:{self.repository}:pull,push"}
        if service := challenge.get("service"):
            parameters["service"] = service
        headers = {"Authorization": self._basic()} if self.username and self.password else {}
        try:
            response = self.client.get(realm, params=parameters, headers=headers)
        except httpx.HTTPError as error:
            raise TryAgainError(first_line(error)) from error
        if response.status_code != 200:
            return None
        answer: dict[str, Any] = response.json()
        token = answer.get("token") or answer.get("access_token")
        return f"Bearer {token}" if token else None

    def _refused(self, response: httpx.Response) -> TrainerError:
        if response.status_code in {401, 403}:
            return self._unreachable(
                f"it answers {response.status_code}; name a Secret with {OCI_USERNAME} and "
                f"{OCI_PASSWORD} of an account that may push in output.oci.secretRef"
            )
        return self._unreachable(f"it answers {response.status_code}{said_in(response)}")

    def _unreachable(self, said: str) -> TrainerError:
        return TrainerError(
            Reason.REGISTRY_UNREACHABLE,
            f"the adapter is stored, but cannot be pushed to {self.reference} ({said}): check "
            "output.oci, and that pods may connect to the registry",
        )


def said_in(response: httpx.Response) -> str:
    """The registry's own words for an error, if it has some."""
    try:
        return f": {response.json()['errors'][0]['message']}"
    except (json.JSONDecodeError, LookupError, TypeError, ValueError):
        return ""
