"""Pictures that callers upload to name them in requests by their URL: kept for a day, below the tenant's own prefix."""

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.http import bodies
from api.http.access import ResourcesDep
from api.resources import Resources
from api.service.signing import UPLOADS
from storage.contracts import access, edits, errors
from storage.ledger import expiry

LIFETIME_S = 24 * 3600
SLOT_S = 3600
"""How long an address to upload to holds."""

_NAME = re.compile(r"[0-9a-f-]{36}\.[a-z]{3,4}")

router = APIRouter(tags=["downloads"])


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One of them. `name` is what it is called below its tenant's prefix; `etag` the object store's."""

    key: str
    content_type: str
    size: int
    created_at: datetime
    etag: str = ""

    @property
    def name(self) -> str:
        """Its own part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def expires_at(self) -> datetime:
        """When it is deleted."""
        return self.created_at + timedelta(seconds=LIFETIME_S)


def _prefix(tenant: str) -> str:
    return f"files/{tenant}/"


def tenant_of(key: str) -> str:
    """Whose an uploaded picture is."""
    return key.split("/")[1]


def new_key(tenant: str, content_type: str) -> str:
    """A key for a picture of this type; of another, its extension tells nothing."""
    return f"{_prefix(tenant)}{uuid.uuid4()}.{edits.extension_of(content_type) or 'bin'}"


async def store(resources: Resources, caller: access.Caller, data: bytes, field: str) -> Upload:
    """Keep a picture. Raises `errors.InvalidInputError`, `errors.TooManyRequestsError`, `errors.ObjectsUnavailableError`."""
    await resources.pacing.bytes(caller, len(data))
    picture = await bodies.picture(data, field)
    return await _stored(resources, new_key(caller.tenant, picture.header.content_type), picture)


async def _stored(resources: Resources, key: str, picture: bodies.CheckedPicture) -> Upload:
    await resources.ledger.run(expiry.keep([key], seconds=LIFETIME_S))
    await resources.objects.put(key, picture.data, picture.header.content_type)
    return Upload(
        key=key, content_type=picture.header.content_type, size=len(picture.data), created_at=datetime.now(UTC)
    )


async def listed(resources: Resources, tenant: str, name: str = "") -> list[Upload]:
    """A tenant's, or those whose names begin so, newest first; a thousand at the most.

    Raises `errors.ObjectsUnavailableError`.
    """
    entries = await resources.objects.entries(_prefix(tenant) + name)
    uploads = [
        Upload(
            key=one.key,
            content_type=edits.content_type_of(one.key),
            size=one.size,
            created_at=one.modified_at,
            etag=one.etag,
        )
        for one in entries
    ]
    return sorted(uploads, key=lambda upload: upload.created_at, reverse=True)


async def one(resources: Resources, tenant: str, name: str) -> Upload:
    """One of a tenant's. Raises `errors.NotFoundError` and `errors.ObjectsUnavailableError`."""
    files = await listed(resources, tenant, name) if _NAME.fullmatch(name) else []
    if not files:
        raise errors.NotFoundError("file not found")
    return files[0]


async def delete(resources: Resources, tenant: str, name: str) -> None:
    """Remove one of a tenant's. Raises as `one`."""
    await resources.objects.delete_prefix((await one(resources, tenant, name)).key)


def slot(resources: Resources, caller: access.Caller, base: str, content_type: str) -> tuple[str, str]:
    """Addresses below `base`: one to put a picture to, without a key, and one it can be fetched from afterwards."""
    now = datetime.now(UTC)
    key = new_key(caller.tenant, content_type)
    fetched = resources.signatures.download_url(base, key, now + timedelta(seconds=LIFETIME_S))
    pace = "" if caller.key_id is None else f"{caller.rights.mb_per_minute or ''}-{caller.key_id}"
    put = resources.signatures.upload_url(base, key, now + timedelta(seconds=SLOT_S), pace=pace)
    return put, fetched


@router.put(UPLOADS + "{key:path}", response_class=Response)
async def put(key: str, request: Request, resources: ResourcesDep, proof: str = "", pace: str = "") -> Response:
    """Upload a picture to an address that was handed out, while its key is valid.

    `pace` is how much that key may send in a minute, if there is a bound, and the key's id.
    """
    if not resources.signatures.is_link(f"{UPLOADS}{key}|{pace}", proof):
        raise errors.NotFoundError("This link is not one of ours, or its time is over")
    mb, _, key_id = pace.partition("-")
    if key_id:
        await resources.keys.named(key_id, tenant_of(key))
    data = await request.body()
    if await resources.objects.entries(key):
        # Put again by a client that had no answer. What lies under a key does not change.
        if await resources.objects.get(key) == data:
            return Response(status_code=200)
        raise errors.InvalidInputError("Something else was put to this address before", field="file")
    if mb:
        await resources.pacing.key_bytes(key_id, int(mb), len(data))
    await _stored(resources, key, await bodies.picture(data, "file"))
    return Response(status_code=200)
