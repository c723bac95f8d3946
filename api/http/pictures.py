"""Pictures in a request: a URL, a data URI, bare base64, an upload; one or several."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from api.http import bodies
from storage.contracts import edits, errors, submissions

MAX_URL = 2048
_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")
_BASE64_BEGINS = re.compile(r"[A-Za-z0-9+/]{24}")
"""Enough to tell base64 from a URL: the whole may have millions of characters."""


async def of_field(body: bodies.Body, field: str, *, bare: bool = False) -> list[edits.Picture]:
    """The pictures that a field names and that were uploaded under its name. Raises `errors.InvalidInputError`."""
    pictures = await of_value(body.fields.get(field), field, bare=bare)
    return pictures + [sent(await bodies.picture(file, field)) for file in body.files.get(field, ())]


async def of_fields(fields: Mapping[str, Any], names: Iterable[str], *, bare: bool = False) -> list[edits.Picture]:
    """The pictures that these fields name, in their order; an empty one names none. Raises `errors.InvalidInputError`."""
    return [picture for name in names for picture in await of_value(fields.get(name) or None, name, bare=bare)]


async def of_value(value: Any, field: str, *, bare: bool = False) -> list[edits.Picture]:
    """The pictures that a value names; `bare`: base64 needs no `data:` before it. Raises `errors.InvalidInputError`."""
    entries = value if isinstance(value, list) else [] if value is None else [value]
    return [await _picture(entry, field, bare) for entry in entries]


async def _picture(entry: object, field: str, bare: bool) -> edits.Picture:
    if isinstance(entry, str) and bare and _BASE64_BEGINS.match(entry):
        entry = f"data:image/png;base64,{entry}"
    if isinstance(entry, str) and entry.startswith("data:"):
        return sent(await bodies.picture_of_data_uri(entry, field))
    if isinstance(entry, str) and entry.startswith(("http://", "https://")):
        if len(entry) > MAX_URL:
            raise errors.InvalidInputError(f"{field} may have at most {MAX_URL} characters as a URL", field=field)
        return edits.RemotePicture(url=entry)
    raise errors.InvalidInputError(f"{field} must be an http(s) URL or a data URI", field=field)


def sent(picture: bodies.CheckedPicture) -> edits.SentPicture:
    """A picture that came with the request."""
    header = picture.header
    return edits.SentPicture(data=picture.data, content_type=header.content_type, transparent=header.transparent)


def echo(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown again of a request, for display alone: everything but the prompt, and pictures that were sent along."""

    def is_picture(value: Any) -> bool:
        return isinstance(value, str) and (
            value.startswith("data:") or len(value) > MAX_URL or _BASE64.fullmatch(value) is not None
        )

    return submissions.bounded(
        {
            name: value
            for name, value in fields.items()
            if name != "prompt" and not any(is_picture(one) for one in (value if isinstance(value, list) else [value]))
        }
    )
