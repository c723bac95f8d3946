"""Results and uploads from our own host, for clients that cannot follow a signed URL of the object store.

Some send their API key along to a result's URL, which the object store refuses beside a signature. A link proves itself.
"""

import hashlib
import re
from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.http.access import ResourcesDep
from api.service.signing import STORED
from storage.contracts import edits, errors

PIECE = 256 * 1024
"""Bytes that are fetched at a time, as the client takes them."""

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")

router = APIRouter(tags=["downloads"])


@router.head(STORED + "{key:path}", response_class=Response)
@router.get(STORED + "{key:path}", response_class=Response)
async def download(key: str, request: Request, resources: ResourcesDep, proof: str = "") -> Response:
    """A result or an upload, by a link that was handed out; a part of it with `Range`."""
    if not resources.signatures.is_link(STORED + key, proof):
        raise errors.NotFoundError("This link is not one of ours, or its time is over")
    # What lies under a key never changes.
    etag = f'"{hashlib.sha256(key.encode()).hexdigest()[:32]}"'
    headers = {
        # A picture for an <img>, and no document of this host's whatever its bytes are taken for.
        "Content-Disposition": f'inline; filename="{_name(key)}"',
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Accept-Ranges": "bytes",
        "ETag": etag,
    }
    known = request.headers.get("if-none-match", "")
    if etag in known or known.strip() == "*":
        return Response(status_code=304, headers=headers)
    size = await resources.objects.size(key)
    status, part = 200, range(size)
    wanted = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    if wanted is not None and (bounds := _bounds(wanted, size)) is not None:
        first, last = bounds
        if first > last:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{size}"})
        status, part = 206, range(first, last + 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    content_type = edits.content_type_of(key)
    headers["Content-Length"] = str(len(part))
    if request.method == "HEAD" or not part:
        return Response(status_code=status, media_type=content_type, headers=headers)
    # Of a reader that takes its time no more is held here than a piece.
    pieces = [part[at : at + PIECE] for at in range(0, len(part), PIECE)]
    begins = await resources.objects.get(key, pieces[0])

    async def body() -> AsyncIterator[bytes]:
        yield begins
        for piece in pieces[1:]:
            yield await resources.objects.get(key, piece)

    return StreamingResponse(body(), status_code=status, media_type=content_type, headers=headers)


def _name(key: str) -> str:
    """A file's name for what lies under a key: the generation's or upload's, with the ending."""
    *_, folder, last = key.split("/")
    stem, _, ending = last.rpartition(".")
    return f"{folder}.{ending}" if stem.isdecimal() else last


def _bounds(wanted: str, size: int) -> tuple[int, int] | None:
    """First and last byte of a range; the last is before the first for one that lies outside.

    None is several ranges, or what is not understood: the whole may be sent then (RFC 9110).
    """
    parts = _RANGE.fullmatch(wanted.replace(" ", ""))
    if not parts or not (parts[1] or parts[2]):
        return None
    if not parts[1]:
        return (max(0, size - int(parts[2])), size - 1) if int(parts[2]) else (1, 0)
    first, last = int(parts[1]), min(int(parts[2] or size - 1), size - 1)
    if parts[2] and int(parts[2]) < first:
        return None
    return (first, last) if first < size else (1, 0)
