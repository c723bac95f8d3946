"""Results and uploads from our own host, for clients that cannot follow a signed URL of the object store.

Some send their API key along to a result's URL, which the object store refuses beside a signature. A link proves itself.
"""

import mimetypes
import uuid

from fastapi import APIRouter
from starlette.responses import Response

from api.http import bodies
from api.http.access import ResourcesDep
from api.resources import Resources
from api.service.signing import STORED
from storage.contracts import errors
from storage.ledger import expiry

UPLOAD_LIFETIME_S = 24 * 3600

router = APIRouter(tags=["downloads"])


async def upload(resources: Resources, tenant: str, data: bytes, field: str) -> tuple[str, bodies.CheckedPicture]:
    """Store a picture for a day; its key. Raises `errors.InvalidInputError` and `errors.ObjectsUnavailableError`."""
    picture = await bodies.picture(data, field)
    extension = mimetypes.guess_extension(picture.header.content_type) or ".png"
    key = f"files/{tenant}/{uuid.uuid4()}{extension}"
    await resources.ledger.run(expiry.keep(key, seconds=UPLOAD_LIFETIME_S))
    await resources.objects.put(key, data, picture.header.content_type)
    return key, picture


@router.get(STORED + "{key:path}", response_class=Response)
async def download(key: str, resources: ResourcesDep, proof: str = "") -> Response:
    """A result or an upload, by a link that was handed out."""
    if not resources.signatures.is_link(STORED + key, proof):
        raise errors.NotFoundError("This link is not one of ours, or its time is over")
    content_type = mimetypes.guess_type(key)[0] or "application/octet-stream"
    # A picture for an <img>, and no document of this host's whatever its bytes are taken for.
    headers = {
        "Content-Disposition": f'inline; filename="{key.rpartition("/")[2]}"',
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return Response(await resources.objects.get(key), media_type=content_type, headers=headers)
