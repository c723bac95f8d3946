"""Request bodies: a JSON object or a multipart form becomes fields and pictures; data URIs become bytes."""

import asyncio
import binascii
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import pydantic_core
from fastapi import Depends
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from storage import pictures
from storage.contracts import errors

MULTIPART = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"


@dataclass(frozen=True, kw_only=True)
class Body:
    """What was sent: plain fields, and files by field name. `textual`: numbers arrived as text, as in a form."""

    fields: Mapping[str, Any]
    files: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    textual: bool = False


MAX_ENCODED = pictures.MAX_BYTES * 4 // 3 * 78 // 76 + 4
"""Characters of a picture in base64, with line breaks as mail has them."""

MAX_COMMAS = 40_000
"""In a body of JSON. A prompt may have 32,000 characters."""

_URL_SAFE = str.maketrans("-_", "+/")

MOST_OF_NONE = 4096
"""Bytes that are read of a body where there is to be none."""

MAX_FIELDS = 64
"""Of a form."""

SMALL = 64 * 1024
"""What is no larger is looked at where it is; a 20 MiB PNG takes longer than other requests should wait."""


async def read(request: Request, *, files: Collection[str] = ()) -> Body:
    """Read a body, in which `files` may be uploaded; where that is so, a form of text alone is read, too.

    Raises `errors.InvalidInputError`.

    A body over the limit ends in 413 before this returns.
    """
    kind = request.headers.get("content-type", "").lower()
    raw = b"" if kind.startswith(MULTIPART) else await request.body()
    # What a shell's client sends as a form unless it is told otherwise is mostly JSON.
    if kind.startswith(MULTIPART) or (files and kind.startswith(URLENCODED) and not raw.lstrip().startswith(b"{")):
        if raw.count(b"&") > MAX_FIELDS:
            # Empty fields are not among those that the parser counts, and each takes its time.
            raise errors.InvalidInputError(f"The form could not be read: it may have at most {MAX_FIELDS} fields")
        body = await _form(request)
        for name in sorted(set(body.files) - set(files)):
            allowed = f"allowed: {', '.join(files)}" if files else "here pictures are URLs or data URIs"
            raise errors.InvalidInputError(f"{name} is not a known file field; {allowed}", field=name)
        return body
    return Body(fields=parsed(raw) if len(raw) <= SMALL else await asyncio.to_thread(parsed, raw))


def parsed(raw: bytes, what: str = "body") -> dict[str, Any]:
    """The fields of a JSON object. Raises `errors.InvalidInputError`."""
    # Each value takes dozens of bytes, and those of a body of nothing but `[],` many times what was received.
    if raw.count(b",") > MAX_COMMAS:
        raise errors.InvalidInputError(f"The {what} may have at most {MAX_COMMAS} commas")
    try:
        # NaN and Infinity are let through here, so that their field can be named. Caching strings is for many small ones.
        fields = pydantic_core.from_json(raw, allow_inf_nan=True, cache_strings=False)
    except ValueError as exc:
        raise errors.InvalidInputError(f"The {what} is not valid JSON: {exc}") from None
    if not isinstance(fields, dict):
        raise errors.InvalidInputError(f"The {what} must be a JSON object")
    return fields


async def _form(request: Request) -> Body:
    fields: dict[str, Any] = {}
    files: dict[str, tuple[bytes, ...]] = {}
    try:
        async with request.form(max_files=17, max_fields=MAX_FIELDS, max_part_size=1 << 20) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    files[name] = (*files.get(name, ()), await value.read())
                elif name in fields:
                    raise errors.InvalidInputError(
                        f"{name} was sent twice; a form has a list in one field, with commas between", field=name
                    )
                else:
                    fields[name] = value
    except HTTPException as exc:
        raise errors.InvalidInputError(f"The form could not be read: {exc.detail}") from None
    return Body(fields=fields, files=files, textual=True)


@dataclass(frozen=True, kw_only=True)
class CheckedPicture:
    """A picture sent along, checked as far as its header goes."""

    data: bytes
    header: pictures.Header


async def picture(data: bytes, name: str) -> CheckedPicture:
    """Check a picture that was sent as bytes. Raises `errors.InvalidInputError`."""
    return await _aside(len(data), lambda: CheckedPicture(data=data, header=pictures.inspect(data, name)))


async def none(request: Request) -> None:
    """For routes that take no body, as their last dependency: nothing is read for those who may not ask.

    Raises `errors.InvalidInputError` naming the fields that were sent.
    """
    raw = b""
    async for piece in request.stream():
        raw += piece
        if len(raw) > MOST_OF_NONE:
            raise errors.InvalidInputError("This route takes no fields; got something else")
    raw = raw.strip()
    if raw in (b"", b"{}"):
        return
    is_json = "json" in request.headers.get("content-type", "")
    fields = ", ".join(sorted(parsed(raw))[:5]) if is_json else "something else"
    raise errors.InvalidInputError(f"This route takes no fields; got {fields}")


NoBody = Annotated[None, Depends(none)]


def is_data_uri(text: str) -> bool:
    """Whether it claims to be one."""
    return text[:5].lower() == "data:"


async def picture_of_data_uri(uri: str, name: str) -> CheckedPicture:
    """Decode `data:…;base64,…` and check it: its content says what it is. Raises `errors.InvalidInputError`."""
    head, comma, encoded = uri.partition(",")
    if not comma or not head.lower().endswith(";base64") or not is_data_uri(head):
        raise errors.InvalidInputError(f"{name} must be a data URI of the form data:image/png;base64,…", field=name)
    if len(encoded) > MAX_ENCODED:
        message = f"{name} may have at most {pictures.MAX_BYTES // 2**20} MiB"
        raise errors.PayloadTooLargeError(message, field=name)
    return await _aside(len(encoded), lambda: _decoded(encoded, name))


async def _aside(size: int, check: Callable[[], CheckedPicture]) -> CheckedPicture:
    return check() if size <= SMALL else await asyncio.to_thread(check)


def _decoded(encoded: str, name: str) -> CheckedPicture:
    # With line breaks, in the alphabet of URLs or without padding, as libraries write it.
    plain = "".join(encoded.split()).translate(_URL_SAFE).rstrip("=")
    try:
        data = binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        raise errors.InvalidInputError(f"{name} is not valid base64", field=name) from None
    return CheckedPicture(data=data, header=pictures.inspect(data, name))
