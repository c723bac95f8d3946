"""Small objects by requests that are signed here and sent over a plain connection.

boto3 takes most of a millisecond of Python for each. What goes wrong here is done again by boto3, which retries and says what
failed, so nothing but speed depends on this.
"""

import os
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import httpcore
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

from storage.settings import StoreSettings

if TYPE_CHECKING:
    from botocore.credentials import Credentials

SMALL = 1024 * 1024
"""Larger objects are boto3's: their time goes into the network, and a retry is worth more."""

KEPT_S = 20.0
"""Seconds an unused connection is kept."""

LIMIT_S = 5.0
CERTIFICATES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
FAULTS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError)


class QuickObjects:
    """The objects below one bucket's URL. Thread-safe."""

    def __init__(self, bucket_url: str, region: str, credentials: "Credentials", authority: Path | None) -> None:
        self._bucket_url = bucket_url
        self._region = region
        self._credentials = credentials
        self._ssl_context = None if authority is None else ssl.create_default_context(cafile=authority)
        # A connection for each thread: they would wait for one another at a pool's lock.
        self._of_thread = threading.local()
        self._pools: list[httpcore.ConnectionPool] = []

    def put(self, key: str, body: bytes, content_type: str) -> bool:
        """Whether it was stored. One that is not small never is."""
        return len(body) <= SMALL and self._answer("PUT", key, body, {"Content-Type": content_type}) is not None

    def get(self, key: str, headers: Mapping[str, str]) -> bytes | None:
        """The object, or its `Range`; None when that could not be fetched, for whatever reason. Raises `KeyError` for none."""
        return self._answer("GET", key, b"", dict(headers))

    def _answer(self, method: str, key: str, body: bytes, headers: dict[str, str]) -> bytes | None:
        """The body of a successful answer. Raises `KeyError` for what is not there."""
        headers["Host"] = urlsplit(self._bucket_url).netloc
        request = AWSRequest(method=method, url=f"{self._bucket_url}/{quote(key)}", data=body, headers=headers)
        S3SigV4Auth(self._credentials, "s3", self._region).add_auth(request)
        try:
            answer = self._connection().request(
                method,
                str(request.url),
                headers=tuple(request.headers.items()),
                content=body,
                extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), LIMIT_S)},
            )
        except FAULTS:
            return None
        if answer.status == 404 and b"NoSuchKey" in answer.content:
            raise KeyError(key)
        return answer.content if answer.status == (206 if "Range" in headers else 200) else None

    def close(self) -> None:
        """Close connections."""
        for pool in self._pools:
            pool.close()

    def _connection(self) -> httpcore.ConnectionPool:
        """This thread's, in the pool that opens it anew where it ended."""
        if not hasattr(self._of_thread, "pool"):
            self._of_thread.pool = httpcore.ConnectionPool(
                ssl_context=self._ssl_context, max_connections=1, keepalive_expiry=KEPT_S
            )
            self._pools.append(self._of_thread.pool)
        return self._of_thread.pool  # type: ignore[no-any-return]


def opened(settings: StoreSettings, credentials: "Credentials | None") -> QuickObjects | None:
    """The configured bucket's; None where boto3 knows more: AWS's own endpoints, or authorities that its own variables name."""
    endpoint_url = settings.s3_endpoint_url
    if endpoint_url is None or credentials is None:
        return None
    authority = settings.store_authority
    if endpoint_url.startswith("https") and authority is None and set(CERTIFICATES) & set(os.environ):
        return None
    return QuickObjects(f"{endpoint_url.rstrip('/')}/{settings.s3_bucket}", settings.s3_region, credentials, authority)
