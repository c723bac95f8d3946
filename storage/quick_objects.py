"""Requests to the object store that are signed here and sent over a plain connection.

boto3 takes most of a millisecond of Python for each small object. What goes wrong here is done again by boto3, which retries and
says what failed, so nothing but speed depends on this.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
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

LIMIT_S = 5.0
CERTIFICATES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
FAULTS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError)


@dataclass(frozen=True, kw_only=True)
class SignedRequest:
    """A request as it goes over the wire."""

    method: str
    url: str
    headers: Sequence[tuple[bytes | str, bytes | str]]
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Signer:
    """Signs requests for one bucket's objects, which lie below `bucket_url`."""

    bucket_url: str
    region: str
    credentials: "Credentials" = field(repr=False)

    def request(self, method: str, key: str, body: bytes = b"", content_type: str | None = None) -> SignedRequest:
        """A signed request, valid for a few minutes."""
        headers = {"Host": urlsplit(self.bucket_url).netloc}
        if content_type is not None:
            headers["Content-Type"] = content_type
        request = AWSRequest(method=method, url=f"{self.bucket_url}/{quote(key)}", data=body, headers=headers)
        S3SigV4Auth(self.credentials, "s3", self.region).add_auth(request)
        return SignedRequest(method=method, url=str(request.url), headers=tuple(request.headers.items()), body=body)


def signer(settings: StoreSettings, credentials: "Credentials | None") -> Signer | None:
    """One for the configured bucket; None where boto3 knows more: AWS's own endpoints, or certificates of one's own."""
    endpoint_url = settings.s3_endpoint_url
    if endpoint_url is None or credentials is None:
        return None
    if endpoint_url.startswith("https") and set(CERTIFICATES) & set(os.environ):
        return None
    bucket_url = f"{endpoint_url.rstrip('/')}/{settings.s3_bucket}"
    return Signer(bucket_url=bucket_url, region=settings.s3_region, credentials=credentials)


def extensions() -> dict[str, dict[str, float]]:
    """Time limits, as httpcore takes them."""
    return {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), LIMIT_S)}
