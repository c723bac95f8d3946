"""Small pictures of results, made when they are looked at: nothing of them is stored, browsers keep them."""

import asyncio
import io
import time

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
MOST_WAITING = 100
_waiting = 0


@router.get(THUMBNAILS + "{key:path}", response_class=Response)
async def thumbnail(key: str, resources: ResourcesDep, proof: str = "") -> Response:
    """A small WebP of a result, by a link that was handed out."""
    if not resources.signatures.is_link(THUMBNAILS + key, proof):
        raise errors.NotFoundError("This link is not one of ours, or its time is over")
    global _waiting
    if _waiting >= MOST_WAITING:
        raise errors.TooManyRequestsError("Too many small pictures are being made", retry_after=2.0)
    _waiting += 1
    try:
        # Whole pictures are held by those alone whose turn it is.
        async with _turns:
            small = await asyncio.to_thread(shrunk, await resources.objects.get(key))
    finally:
        _waiting -= 1
    kept_s = max(0, min(KEPT_S, int(proof.partition(".")[0]) - int(time.time())))
    headers = {"Cache-Control": f"private, max-age={kept_s}", "Content-Security-Policy": "sandbox; default-src 'none'"}
    return Response(small, media_type="image/webp", headers=headers)


def shrunk(data: bytes) -> bytes:
    """A picture of the service's own making, no larger than `SIDE`, as WebP."""
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue()
