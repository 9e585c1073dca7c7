"""A bucket of an S3-compatible store: the few operations we need, and what its errors mean."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tunesmith.api.credentials import (
    S3_ACCESS_KEY,
    S3_ENDPOINT,
    S3_REGION,
    S3_SECRET_KEY,
    S3_SESSION_TOKEN,
    credential,
)
from tunesmith.api.trainer_contract import Reason

from tunesmith_trainer.failure import TrainerError, first_line

if TYPE_CHECKING:
    from s3fs import S3FileSystem

#: botocore tries as often, with growing pauses; s3fs begins anew once after that.
ATTEMPTS = 4
ROUNDS = 2
CONNECT_SECONDS = 10
DEFAULT_REGION = "us-east-1"
READ_SECONDS = 60
#: Error codes by which a store says that these credentials open nothing here.
DENIED = frozenset(
    {
        *("AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
        *("ExpiredToken", "InvalidToken", "AllAccessDisabled", "InvalidSecurity"),
        # What the Versity gateway calls an unknown access key.
        "XAdminUserNotFound",
    }
)
KEYS_TO_DELETE_AT_ONCE = 1000
#: Ten parts of a file are under way at a time, and are in memory.
PART_BYTES = 16 * 1024**2
MOST_PARTS = 10_000


@dataclass(frozen=True)
class StoredObject:
    """An object by name, with what tells its content from another one's."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class Bucket:
    """A bucket, seen with the credentials of one source.

    Every method raises TrainerError(``reason``) when the store cannot be reached or says no.
    """

    name: str
    credentials: str | None
    reason: Reason = Reason.SOURCE_UNREACHABLE
    endpoint: str | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "endpoint", self._setting(S3_ENDPOINT))

    def listed(self, prefix: str) -> list[StoredObject]:
        """Every object whose key begins like this, by key."""
        found: list[StoredObject] = []
        more: dict[str, str] = {}
        while True:
            with self.errors():
                page = self._store.call_s3(
                    "list_objects_v2", Bucket=self.name, Prefix=prefix, **more
                )
            found += [
                StoredObject(each["Key"], each["Size"], each["ETag"])
                for each in page.get("Contents", [])
            ]
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def find(self, key: str) -> StoredObject | None:
        """The object with this key; None if there is none."""
        try:
            with self.errors():
                head = self._store.call_s3("head_object", Bucket=self.name, Key=key)
        except FileNotFoundError:
            return None
        return StoredObject(key, head["ContentLength"], head["ETag"])

    def read(self, key: str) -> bytes | None:
        """A small object; None if there is none."""
        try:
            with self.errors():
                return bytes(self._store.cat_file(f"{self.name}/{key}"))
        except FileNotFoundError:
            return None

    def write(self, key: str, content: bytes) -> None:
        """A small object. Nobody ever sees half of it."""
        with self.errors():
            self._store.call_s3("put_object", Bucket=self.name, Key=key, Body=content)

    def download(self, key: str, path: Path) -> None:
        """Raises FileNotFoundError."""
        with self.errors():
            self._store.get_file(f"{self.name}/{key}", str(path), chunksize=PART_BYTES)

    def upload(self, path: Path, key: str) -> None:
        """A file as an object, in parts where it is large. Nobody ever sees half of it."""
        part = max(PART_BYTES, -(-path.stat().st_size // MOST_PARTS))
        with self.errors():
            self._store.put_file(str(path), f"{self.name}/{key}", chunksize=part)

    def delete(self, keys: list[str]) -> None:
        """Gone already is fine."""
        for start in range(0, len(keys), KEYS_TO_DELETE_AT_ONCE):
            names = [{"Key": key} for key in keys[start : start + KEYS_TO_DELETE_AT_ONCE]]
            with self.errors():
                self._store.call_s3(
                    "delete_objects", Bucket=self.name, Delete={"Objects": names, "Quiet": True}
                )

    @cached_property
    def _store(self) -> S3FileSystem:
        from s3fs import S3FileSystem

        # Their tracebacks and retries would tell what our own sentence tells.
        for library in ("s3fs", "aiobotocore", "botocore"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
        # The same credentials are the same connection: fsspec keeps it.
        store = S3FileSystem(
            anon=self._is_anonymous,
            key=self._credential(S3_ACCESS_KEY),
            secret=self._credential(S3_SECRET_KEY),
            token=self._credential(S3_SESSION_TOKEN),
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": self._setting(S3_REGION) or DEFAULT_REGION},
            config_kwargs=self._configuration(),
            use_listings_cache=False,
        )
        store.retries = ROUNDS
        return store

    def _configuration(self) -> dict[str, Any]:
        """What botocore.config.Config takes."""
        return {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"max_attempts": ATTEMPTS, "mode": "standard"},
            # Newer checksums are unknown to many stores that are not Amazon's.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            # A store of one's own seldom has a name in DNS for every bucket.
            **({"s3": {"addressing_style": "path"}} if self.endpoint else {}),
        }

    @cached_property
    def _is_anonymous(self) -> bool:
        """Whether nothing opens the bucket: neither a Secret nor the pod's own identity."""
        from botocore.session import get_session

        return self._credential(S3_ACCESS_KEY) is None and get_session().get_credentials() is None

    def _setting(self, key: str) -> str | None:
        """What is no secret may stand in podTemplate.env for all sources."""
        return self._credential(key) or os.environ.get(key) or None

    def _credential(self, key: str) -> str | None:
        return credential(os.environ, self.credentials, key)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what goes wrong into a sentence. FileNotFoundError stays, for a missing object."""
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (OSError, BotoCoreError) as error:
            code = code_of(error)
            if isinstance(error, FileNotFoundError) and code != "NoSuchBucket":
                raise
            raise TrainerError(self.reason, self._sentence(error, code)) from error

    def _sentence(self, error: Exception, code: str) -> str:
        if code == "NoSuchBucket":
            return (
                f"{self._place()} has no bucket {self.name}: create it, or correct the uri or "
                f"{S3_ENDPOINT} in the Secret"
            )
        if code in DENIED or isinstance(error, PermissionError):
            denied = f"{self._place()} denies access to the bucket {self.name} ({code or 'denied'})"
            if self._is_anonymous:
                return (
                    f"{denied}, which nothing opens: name a Secret with {S3_ACCESS_KEY} and "
                    f"{S3_SECRET_KEY} in secretRef"
                )
            return (
                f"{denied}: check {S3_ACCESS_KEY} and {S3_SECRET_KEY} in the Secret of secretRef, "
                "and what they may do with this bucket"
            )
        said = code or type(error).__name__ if self.endpoint else first_line(error)
        return (
            f"the bucket {self.name} cannot be reached at {self._place()} ({said}): check "
            f"{S3_ENDPOINT} and {S3_REGION} in the Secret of secretRef, and that pods may connect "
            "to it"
        )

    def _place(self) -> str:
        """Where the store is, without what else its address may hold."""
        if self.endpoint is None:
            return "Amazon S3"
        parts = urlsplit(self.endpoint)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def code_of(error: BaseException) -> str:
    """The store's own word for an error; empty if it came to none."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""
