"""Pictures as callers have them, and requests as they are sent: a form where a picture is uploaded, JSON where none is."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias


class PillowImage(Protocol):
    """A `PIL.Image.Image`, without Pillow being needed for anything else."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002  (Pillow's own name)
        """Write the picture's file."""


Source: TypeAlias = "str | Path | bytes | PillowImage"
"""A path, an http(s) URL, a data URI, a file's bytes, or Pillow's image."""

Sources: TypeAlias = "Source | Sequence[Source] | None"

Upload: TypeAlias = tuple[str, tuple[str, bytes]]
"""Field, file name and bytes, as httpx takes them."""


def request_of(fields: Mapping[str, object], pictures: Mapping[str, Sources]) -> dict[str, Any]:
    """What httpx is to send: `json`, or `data` and `files`. Fields that are None are left out.

    Raises `OSError` for a path that cannot be read and `TypeError` for what is no picture.
    """
    told = {name: value for name, value in fields.items() if value is not None}
    listed = {name: _listed(value) for name, value in pictures.items() if value is not None}
    if not any(not is_url(one) for sources in listed.values() for one in sources):
        urls: dict[str, object] = {
            name: sources[0] if len(sources) == 1 else list(sources) for name, sources in listed.items()
        }
        return {"json": {**told, **urls}}
    files: list[Upload] = []
    urls = {}
    for name, sources in listed.items():
        if all(is_url(one) for one in sources):
            # A form has one value of a name: several URLs would have to be fetched here.
            if len(sources) > 1:
                raise TypeError(f"{name}: several URLs cannot be sent beside an uploaded picture")
            urls[name] = sources[0]
        elif any(is_url(one) for one in sources):
            raise TypeError(f"{name}: URLs and uploaded pictures cannot be mixed; download the URLs first")
        else:
            files += [(name, _upload(one)) for one in sources]
    return {"data": {name: _text(value) for name, value in {**told, **urls}.items()}, "files": files}


def either(one: "Sources", other: "Sources", *names: str) -> "Sources":
    """What goes by two names. Raises `TypeError` where both are given."""
    if one is not None and other is not None:
        raise TypeError("{} and {} are the same; give one of them".format(*names))
    return other if one is None else one


def shaped(fields: Mapping[str, object], *, has_picture: bool) -> dict[str, object]:
    """Fields, with the input's shape where they say none and there is a picture."""
    says = any(fields.get(name) not in (None, False) for name in ("aspect_ratio", "width", "height", "exact_size"))
    has_picture = has_picture or "parent_generation_id" in fields
    return {**fields, **({} if says or not has_picture else {"aspect_ratio": "match_input_image"})}


def _listed(value: "Sources") -> Sequence["Source"]:
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return value
    return [value]  # type: ignore[list-item]


def is_url(source: "Source") -> bool:
    """Whether a picture is named by a URL or a data URI, which is sent as it is."""
    return isinstance(source, str) and source.startswith(("http://", "https://", "data:"))


def expanded(path: "str | Path") -> Path:
    """A path, with the home directory for `~` where it means one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a file's name that begins with it
        return Path(path)


def _upload(source: "Source") -> tuple[str, bytes]:
    if isinstance(source, bytes):
        return "picture", source
    if isinstance(source, str | Path):
        path = expanded(source)
        return path.name.encode(errors="replace").decode(), path.read_bytes()
    if hasattr(source, "save"):
        buffer = io.BytesIO()
        source.save(buffer, format="PNG")
        return "picture.png", buffer.getvalue()
    raise TypeError(f"a picture is a path, a URL, bytes or Pillow's image; got {type(source).__name__}")


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, bool | dict) else str(value)
