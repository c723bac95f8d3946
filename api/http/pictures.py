"""Pictures in a request: a URL, a data URI, bare base64, an upload; one or several."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api.http import bodies
from storage.contracts import edits, errors, submissions

MAX_URL = 2048
MAX_PICTURES = 16
"""Under one name; no model takes as many."""
_BASE64_BEGINS = re.compile(r"[A-Za-z0-9+/_-]{24}")
"""Enough to tell base64 from a URL: the whole may have millions of characters."""
_PICTURES_BEGIN = ("iVBORw0KGgo", "/9j/", "_9j_", "R0lGOD", "UklGR")
"""PNG, JPEG, GIF and WebP in base64."""
_WEB = re.compile("https?://", re.IGNORECASE)

Named = tuple[str, list[edits.Picture]]
"""A field, or the first of several that are numbered, and the pictures that it names."""


async def of_field(body: bodies.Body, field: str, *, bare: bool = False) -> list[edits.Picture]:
    """The pictures that a field names and that were uploaded under its name. Raises `errors.InvalidInputError`."""
    pictures = await of_value(body.fields.get(field), field, bare=bare)
    return pictures + [sent(await bodies.picture(file, field)) for file in body.files.get(field, ())]


async def of_fields(fields: Mapping[str, Any], names: Iterable[str], *, bare: bool = False) -> list[edits.Picture]:
    """The pictures that these fields name, in their order; an empty one names none. Raises `errors.InvalidInputError`."""
    return [picture for name in names for picture in await of_value(fields.get(name) or None, name, bare=bare)]


def once(named: Iterable[Named]) -> list[edits.Picture]:
    """The pictures of fields that mean the same, of which clients send several at once to be understood by any model.

    The same pictures under several names count once. Raises `errors.InvalidInputError` for a field with another picture.
    """
    given = [(field, pictures) for field, pictures in named if pictures]
    if not given:
        return []
    fullest, chosen = max(given, key=lambda one: len(one[1]))
    for field, pictures in given:
        if any(picture not in chosen for picture in pictures):
            message = f"{field} and {fullest} mean the same here and name different pictures; send all of them in one"
            raise errors.InvalidInputError(message, field=field)
    return chosen


async def of_synonyms(
    fields: Mapping[str, Any], names: Iterable[str | Sequence[str]], *, bare: bool = False
) -> list[edits.Picture]:
    """The pictures of fields that mean the same, see `once`; a sequence of names is fields that are numbered."""
    groups = [(name,) if isinstance(name, str) else name for name in names]
    return once([(group[0], await of_fields(fields, group, bare=bare)) for group in groups])


async def of_value(value: Any, field: str, *, bare: bool = False) -> list[edits.Picture]:
    """The pictures that a value names; `bare`: base64 needs no `data:` before it. Raises `errors.InvalidInputError`."""
    return [await _picture(entry, field, bare) for entry in entries(value, field)]


def entries(value: Any, field: str) -> list[Any]:
    """What a field lists, or the one thing that it is. Raises `errors.InvalidInputError` for more than `MAX_PICTURES`."""
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if len(listed) > MAX_PICTURES:
        message = f"{field} may have at most {MAX_PICTURES} pictures; got {len(listed)}"
        raise errors.InvalidInputError(message, field=field)
    return listed


async def _picture(entry: object, field: str, bare: bool) -> edits.Picture:
    if isinstance(entry, str) and bare and _BASE64_BEGINS.match(entry):
        entry = f"data:;base64,{entry}"
    if isinstance(entry, str) and bodies.is_data_uri(entry):
        return sent(await bodies.picture_of_data_uri(entry, field))
    if isinstance(entry, str) and _WEB.match(entry):
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
            bodies.is_data_uri(value) or len(value) > MAX_URL or value.startswith(_PICTURES_BEGIN)
        )

    return submissions.bounded(
        {
            name: value
            for name, value in fields.items()
            if name != "prompt" and not any(is_picture(one) for one in (value if isinstance(value, list) else [value]))
        }
    )
