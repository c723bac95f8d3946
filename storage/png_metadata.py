"""Metadata of a PNG that a library would stop at: texts, and colour profiles of more than a megabyte.

Pillow refuses a whole picture for one text or profile that inflates to more. Of texts those alone are kept that may say which
side is up; without its profile a picture is taken for sRGB.
"""

import zlib

MAX_BYTES = 2**20
"""Of a text or a profile, inflated, as Pillow's limit has it."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PROFILE = b"iCCP"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_SAYS_WHAT_IS_UP = (b"XML:com.adobe.xmp", b"Raw profile type exif")


def is_png(data: bytes) -> bool:
    """Whether a file begins as one."""
    return data.startswith(_SIGNATURE)


def without_large(data: bytes) -> bytes:
    """A PNG with its first profile and its first text of each kind that matters, where they are not too large.

    The same bytes where there is nothing to leave out. What cannot be read as chunks stays as it is.
    """
    pieces, at, begun = [], len(_SIGNATURE), 0
    seen: set[bytes] = set()
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : end - 4]
        if kind == _PROFILE or kind in _TEXTS:
            keyword, _, rest = body.partition(b"\0")
            name = kind if kind == _PROFILE else keyword
            # More than one of a kind is no PNG, and inflating costs time.
            is_kept = (
                name not in seen and (kind == _PROFILE or keyword in _SAYS_WHAT_IS_UP) and not _is_large(kind, rest)
            )
            seen.add(name)
            if not is_kept:
                pieces.append(data[begun:at])
                begun = end
        at = end
    return b"".join([*pieces, data[begun:]]) if pieces else data


def _is_large(kind: bytes, rest: bytes) -> bool:
    """Whether what follows a chunk's keyword inflates to more than the limit; not inflated further than that."""
    if kind == b"tEXt":
        return len(rest) > MAX_BYTES
    if kind == b"iTXt":
        # Whether it is compressed, how, its language, and its keyword in that.
        is_packed, packed = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        if not is_packed:
            return len(packed) > MAX_BYTES
    else:
        packed = rest[1:]
    try:
        return len(zlib.decompressobj().decompress(packed, MAX_BYTES)) >= MAX_BYTES
    except zlib.error:
        return False
