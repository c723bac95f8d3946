"""Small pictures of results, made when they are looked at: nothing of them is stored, browsers keep them."""

import asyncio
import io

from fastapi import APIRouter
from PIL import Image
from starlette.responses import Response

from api.http.access import ResourcesDep
from api.service.signing import THUMBNAILS
from storage.contracts import errors

SIDE = 320
"""Pixels of the longer side."""
KEPT_S = 86_400

router = APIRouter(tags=["downloads"])

# Decoding takes a processor: of a page of fifty, two at a time.
_turns = asyncio.Semaphore(2)


@router.get(THUMBNAILS + "{key:path}", response_class=Response)
async def thumbnail(key: str, resources: ResourcesDep, proof: str = "") -> Response:
    """A small WebP of a result, by a link that was handed out."""
    if not resources.signatures.is_link(THUMBNAILS + key, proof):
        raise errors.NotFoundError("This link is not one of ours, or its time is over")
    data = await resources.objects.get(key)
    async with _turns:
        small = await asyncio.to_thread(shrunk, data)
    headers = {"Cache-Control": f"private, max-age={KEPT_S}", "Content-Security-Policy": "sandbox; default-src 'none'"}
    return Response(small, media_type="image/webp", headers=headers)


def shrunk(data: bytes) -> bytes:
    """A picture of the service's own making, no larger than `SIDE`, as WebP."""
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue()
