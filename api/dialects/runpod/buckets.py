"""Where a job's result goes besides: the caller's own bucket. What signs it is used here and kept nowhere."""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.handlers import VALID_BUCKET
from botocore.utils import is_valid_endpoint_url, is_valid_ipv6_endpoint_url, validate_region_name

from api.dialects import fields
from api.http.pictures import MAX_URL
from storage.contracts import edits, errors, results

SIGNED_S = int(results.RESULT_LIFETIME.total_seconds())
REQUIRED = ("accessId", "accessSecret", "bucketName", "endpointUrl")
REGION = "us-east-1"
"""Of configurations that name none."""
OPTIONAL = ("objectPath", "region")


class Config(fields.Fields):
    """A job's `s3Config`."""

    accessId: str  # noqa: N815
    accessSecret: str  # noqa: N815
    bucketName: str  # noqa: N815
    endpointUrl: str  # noqa: N815
    objectPath: str = ""  # noqa: N815
    region: str = ""


def delivery(config: Mapping[str, Any], output_format: edits.OutputFormat) -> edits.Delivery | None:
    """Signed URLs of an object in the caller's bucket, if there is one. Raises `errors.InvalidInputError`."""
    if not config:
        return None
    known = (*REQUIRED, *OPTIONAL)
    for field in known:
        value = config.get(field)
        if (value is not None and not isinstance(value, str)) or (field in REQUIRED and not value):
            message = f"s3Config.{field} is missing or no string; fields: {', '.join(known)}"
            raise errors.InvalidInputError(message, field="s3Config")
    sent = Config(**{name: value for name, value in config.items() if name in known and value is not None})
    if not sent.endpointUrl.startswith(("http://", "https://")) or len(sent.endpointUrl) > MAX_URL:
        raise errors.InvalidInputError("s3Config.endpointUrl must be an http(s) URL", field="s3Config")
    if not _is_addressable(sent):
        # Not in words that may repeat what was sent.
        raise errors.InvalidInputError("s3Config names no bucket that can be addressed", field="s3Config")
    where = f"{sent.endpointUrl.rstrip('/')}/{sent.bucketName}"
    folder = sent.objectPath.strip("/")
    name = f"{folder or f'{datetime.now(UTC):%Y-%m}'}/{secrets.token_hex(8)}.{edits.EXTENSIONS[output_format]}"
    url = f"{where}/{quote(name)}"
    return edits.Delivery(
        put_url=_signed(sent, "PUT", url, {"Content-Type": edits.CONTENT_TYPES[output_format]}),
        get_url=_signed(sent, "GET", url, {}),
        destination=f"{where}/{quote(folder)}",
    )


def _is_addressable(config: Config) -> bool:
    """Whether botocore would address it: a bucket with a name that S3 allows, a region and a host that can be written."""
    try:
        urlsplit(config.endpointUrl).port  # noqa: B018  (raises where it is no number)
        validate_region_name(config.region or REGION)
        is_host = is_valid_ipv6_endpoint_url(config.endpointUrl) or is_valid_endpoint_url(config.endpointUrl)
    except ValueError:
        return False
    return bool(is_host and VALID_BUCKET.search(config.bucketName))


def _signed(config: Config, method: str, url: str, headers: Mapping[str, str]) -> str:
    request = AWSRequest(method=method, url=url, headers=dict(headers))
    credentials = Credentials(config.accessId, config.accessSecret)
    S3SigV4QueryAuth(credentials, "s3", config.region or REGION, expires=SIGNED_S).add_auth(request)
    return str(request.url)
