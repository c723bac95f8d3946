"""Metadata of a PNG that a library would stop at: texts, and colour profiles of more than a megabyte.

Pillow refuses a whole picture for one text or profile that inflates to more. None of these texts says anything about the
pixels, and without its profile a picture is taken for sRGB.
"""

import zlib

MAX_PROFILE_BYTES = 2**20
"""Inflated, as Pillow's limit has it."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PROFILE = b"iCCP"


def is_png(data: bytes) -> bool:
    """Whether a file begins as one."""
    return data.startswith(_SIGNATURE)


def without_large(data: bytes) -> bytes:
    """A PNG without its texts, and without a profile that is too large; the same bytes where there is none of these.

    What cannot be read as chunks stays as it is.
    """
    kept, at, begun = [], len(_SIGNATURE), 0
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if kind in _TEXTS or (kind == _PROFILE and _is_large(data[at + 8 : end - 4])):
            kept.append(data[begun:at])
            begun = end
        at = end
    return b"".join([*kept, data[begun:]]) if kept else data


def _is_large(profile: bytes) -> bool:
    """Whether a profile inflates to more than the limit; not inflated further than that."""
    _, _, packed = profile.partition(b"\0")
    try:
        inflated = zlib.decompressobj().decompress(packed[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return False
    return len(inflated) >= MAX_PROFILE_BYTES
