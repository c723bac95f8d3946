"""The object store: inputs, results, and the URLs by which clients fetch them. Synchronous; the API calls it in threads."""

import functools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import botocore.exceptions
from botocore.config import Config

from storage import quick_objects
from storage.contracts import errors, results
from storage.metrics import ObserveCall
from storage.settings import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

CONNECTIONS = 32
"""boto3 keeps open."""

SIGNED_AGAIN_S = 300
_GONE = "The picture is no longer kept"
LONGEST_SIGNATURE_S = int(results.RESULT_LIFETIME.total_seconds())


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An object of a listing; its size in bytes."""

    key: str
    size: int
    etag: str
    modified_at: datetime


class Objects:
    """One bucket."""

    def __init__(self, settings: StoreSettings, *, observe: ObserveCall | None = None) -> None:
        """`observe` is told of each call."""
        self._observe = observe
        self._bucket = settings.s3_bucket
        self._client = _client(settings, settings.s3_endpoint_url)
        # Signed for the host that clients see: inside compose or a cluster the store has another name.
        self._signer = _client(settings, settings.s3_public_endpoint_url or settings.s3_endpoint_url)
        self._signed = functools.lru_cache(maxsize=10_000)(self._sign)
        credentials = self._client._request_signer._credentials  # type: ignore[attr-defined]
        self._quick = quick_objects.opened(settings, credentials)
        if credentials is not None and credentials.token:
            log.warning("S3 credentials are temporary: result URLs die with them, before their seven days are over")

    def ensure_bucket(self) -> None:
        """Create the bucket unless it is there. Raises `errors.ObjectsUnavailableError`."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except botocore.exceptions.ClientError:
            with _translated():
                self._client.create_bucket(Bucket=self._bucket)
        except botocore.exceptions.BotoCoreError as exc:
            raise _unavailable(exc) from exc

    def check(self) -> None:
        """Is the bucket there? Raises `errors.ObjectsUnavailableError`."""
        with self._call("check"):
            self._client.head_bucket(Bucket=self._bucket)

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store. Raises `errors.ObjectsUnavailableError`."""
        with self._call("put"):
            if self._quick is None or not self._quick.put(key, body, content_type):
                self.put_patiently(key, body, content_type)

    def put_patiently(self, key: str, body: bytes, content_type: str) -> None:
        """The same by boto3, with its retries. Raises `errors.ObjectsUnavailableError`."""
        with _translated():
            self._client.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType=content_type)

    def copy(self, source: str, key: str) -> None:
        """Store again under another key. Raises `errors.NotFoundError` and `errors.ObjectsUnavailableError`."""
        with self._call("copy"):
            # Asked first: of a copy from nowhere look-alikes of S3 say all kinds of things.
            self._size(source)
            self._client.copy_object(Bucket=self._bucket, Key=key, CopySource={"Bucket": self._bucket, "Key": source})

    def _size(self, key: str) -> int:
        try:
            return self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
        except botocore.exceptions.ClientError as exc:
            if exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                raise errors.NotFoundError(_GONE) from None
            raise

    def size(self, key: str) -> int:
        """How many bytes it has. Raises `errors.NotFoundError` and `errors.ObjectsUnavailableError`."""
        with self._call("size"):
            return self._size(key)

    def get(self, key: str, part: range | None = None) -> bytes:
        """Fetch, all of it or the bytes of `part`. Raises `errors.NotFoundError` and `errors.ObjectsUnavailableError`."""
        headers: dict[str, Any] = {} if part is None else {"Range": f"bytes={part.start}-{part.stop - 1}"}
        with self._call("get"):
            try:
                body = self._quick.get(key, headers) if self._quick else None
                if body is None:
                    body = self._client.get_object(Bucket=self._bucket, Key=key, **headers)["Body"].read()
            except (KeyError, self._client.exceptions.NoSuchKey):
                raise errors.NotFoundError(_GONE) from None
            # Some look-alikes of S3 answer with all of it.
            return body if part is None or len(body) == len(part) else body[part.start : part.stop]

    def entries(self, prefix: str) -> list[Entry]:
        """What lies below a prefix, a thousand at the most. Raises `errors.ObjectsUnavailableError`."""
        with self._call("list"):
            page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix)
        return [
            Entry(key=one["Key"], size=one["Size"], etag=one["ETag"].strip('"'), modified_at=one["LastModified"])
            for one in page.get("Contents", ())
        ]

    def find(self, key: str) -> bytes | None:
        """Fetch what may be there. Raises `errors.ObjectsUnavailableError`."""
        try:
            return self.get(key)
        except errors.NotFoundError:
            return None

    def delete(self, key: str) -> None:
        """Remove an object, should it be there. Raises `errors.ObjectsUnavailableError`."""
        with self._call("delete"):
            self._client.delete_object(Bucket=self._bucket, Key=key)

    def delete_prefix(self, prefix: str) -> int:
        """Remove everything below a prefix; how many objects that was. Raises `errors.ObjectsUnavailableError`."""
        removed = 0
        with self._call("delete"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    self._client.delete_object(Bucket=self._bucket, Key=entry["Key"])
                    removed += 1
        return removed

    @contextmanager
    def _call(self, operation: str) -> Iterator[None]:
        """Translates faults, and has the call counted; that there is no such object is none."""
        began, is_ok = time.perf_counter(), False
        try:
            with _translated():
                yield
            is_ok = True
        except errors.NotFoundError:
            is_ok = True
            raise
        finally:
            if self._observe is not None:
                self._observe(operation, seconds=time.perf_counter() - began, is_ok=is_ok)

    def close(self) -> None:
        """Close connections."""
        if self._quick is not None:
            self._quick.close()

    def signed_url(self, key: str, expires_at: datetime) -> str:
        """A URL that downloads the object until `expires_at` (aware), seven days from now at the most. No round trip."""
        # Signing takes half a millisecond, and one completion is told to several readers. Not remembered for long: temporary
        # credentials are replaced.
        return self._signed(key, expires_at, int(time.monotonic() // SIGNED_AGAIN_S))

    def _sign(self, key: str, expires_at: datetime, period: int) -> str:
        remaining = int((expires_at - datetime.now(UTC)).total_seconds())
        return self._signer.generate_presigned_url(
            "get_object",
            Params={"Bucket": self._bucket, "Key": key},
            ExpiresIn=max(1, min(remaining, LONGEST_SIGNATURE_S)),
        )


def _client(settings: StoreSettings, endpoint_url: str | None) -> "S3Client":
    secret = settings.s3_secret_access_key
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=settings.s3_region,
        verify=None if settings.store_authority is None else str(settings.store_authority),
        aws_access_key_id=settings.s3_access_key_id,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if endpoint_url else "auto"},
            connect_timeout=2,
            read_timeout=10,
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=CONNECTIONS,
            # Look-alikes of S3 do not all know the newer checksums, and TLS and the signature already protect the body.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _unavailable(exc: Exception) -> errors.ObjectsUnavailableError:
    reason = type(exc).__name__
    if isinstance(exc, botocore.exceptions.ClientError):
        reason = str(exc.response.get("Error", {}).get("Code", reason))
    return errors.ObjectsUnavailableError(f"The object store does not answer ({reason})", retry_after=2.0)


@contextmanager
def _translated() -> Iterator[None]:
    """Turns botocore's faults into ours."""
    try:
        yield
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as exc:
        raise _unavailable(exc) from exc
