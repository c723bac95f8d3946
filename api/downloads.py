"""Results and uploads from our own host, for clients that cannot follow a signed URL of the object store.

Some send their API key along to a result's URL, which the object store refuses beside a signature. A link proves itself.
"""

import mimetypes
import time
import uuid
from datetime import datetime

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api import bodies
from api.access import Held, own_url
from api.resources import Resources
from api.signatures import STORED
from storage.contracts import errors, generations
from storage.ledger import expiry

UPLOAD_LIFETIME_S = 24 * 3600

router = APIRouter(tags=["downloads"])


def link(base: str, held: Resources, key: str, expires_at: datetime) -> str:
    """A URL below `base` that downloads an object until `expires_at`."""
    return f"{base}{STORED}{key}?proof={held.signatures.link(STORED + key, expires_at=int(expires_at.timestamp()))}"


def result_link(request: Request, held: Resources, found: generations.Generation) -> str | None:
    """The same for a generation's result, while it is kept."""
    expires_at = found.times.expires_at
    if found.result is None or expires_at is None or expires_at.timestamp() < time.time():
        return None
    return link(own_url(request, held, ""), held, found.result.key, expires_at)


async def upload(held: Resources, tenant: str, data: bytes, field: str) -> tuple[str, bodies.Picture]:
    """Store a picture for a day; its key. Raises `errors.InvalidInputError` and `errors.ObjectsUnavailableError`."""
    picture = await bodies.picture(data, field)
    extension = mimetypes.guess_extension(picture.header.content_type) or ".png"
    key = f"files/{tenant}/{uuid.uuid4()}{extension}"
    await held.ledger.run(expiry.keep(key, seconds=UPLOAD_LIFETIME_S))
    await held.objects.put(key, data, picture.header.content_type)
    return key, picture


@router.get(STORED + "{key:path}", response_class=Response)
async def download(key: str, held: Held, proof: str = "") -> Response:
    """A result or an upload, by a link that was handed out."""
    if not held.signatures.is_link(STORED + key, proof):
        raise errors.NotFoundError("This link is not one of ours, or its time is over")
    content_type = mimetypes.guess_type(key)[0] or "application/octet-stream"
    return Response(await held.objects.get(key), media_type=content_type)
