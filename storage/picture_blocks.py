"""How many blocks a picture's file is made of, counted before a library reads them.

A file's metadata stands in blocks whose number nothing limits but the file's size: a JPEG of 20 MB may have 1.7 million EXIF
segments, which Pillow joins one by one, copying all before it (158 s). Real files have tens. Other
formats take seconds in the same way. Here blocks are walked without being read, and only up to a limit.
"""

from collections.abc import Callable

MAX_BLOCKS = 1000
"""Of metadata, before the pixels. A photograph with depth map and colour profile has about 300, each at most 64 KiB."""

MAX_EXIF_SEGMENTS = 16
"""The standard has one; each further one is joined to it by copying."""

MAX_JUNK_BYTES = 64 * 1024
"""Between a JPEG's segments, where nothing belongs."""

MAX_PIXEL_BLOCKS = 40_000
"""Of pixels: a PNG of 20 MiB in pieces of half a kilobyte, where usual ones have 8 KiB; frames of an animation."""

_PNG_SIGNATURE = 8
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers without a length."""
_START_OF_SCAN = 0xDA


def too_many(data: bytes, format_: str) -> bool:
    """Whether a file of this format (`PNG`, `JPEG`, `GIF`, `WEBP`) has more blocks than any real one.

    A malformed file is not judged here: what can be read of it has few blocks.
    """
    return _WALKS[format_](data)


def format_of(data: bytes) -> str | None:
    """What a file is by its first bytes; None is none of the four."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _jpeg(data: bytes) -> bool:
    at, segments, exif, junk = 2, 0, 0, 0
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            # Pillow looks for the next marker, byte by byte.
            marker = data.find(b"\xff", at)
            if marker < 0:
                return len(data) - at > MAX_JUNK_BYTES
            junk += marker - at
            at, segments = marker, segments + 1
        elif data[at + 1] in (0xFF, 0x00):
            at, segments = at + 1, segments + 1
        elif data[at + 1] == _START_OF_SCAN:
            return False
        elif data[at + 1] in _STANDALONE:
            at, segments = at + 2, segments + 1
        else:
            exif += data[at + 1] == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0"
            at, segments = at + 2 + int.from_bytes(data[at + 2 : at + 4]), segments + 1
        if segments > MAX_BLOCKS or exif > MAX_EXIF_SEGMENTS or junk > MAX_JUNK_BYTES:
            return True
    return False


def _png(data: bytes) -> bool:
    at, chunks, pixels = _PNG_SIGNATURE, 0, 0
    while at + 8 <= len(data):
        if data[at + 4 : at + 8] in (b"IDAT", b"fcTL", b"fdAT"):
            pixels += 1
        else:
            chunks += 1
        if chunks > MAX_BLOCKS or pixels > MAX_PIXEL_BLOCKS:
            return True
        at += 12 + int.from_bytes(data[at : at + 4])
    return False


def _gif(data: bytes) -> bool:
    """Up to the first frame: the others are not read."""
    at, blocks = 13, 0
    if len(data) > 10 and data[10] & 0x80:
        at += 3 * 2 ** ((data[10] & 7) + 1)
    while at + 2 <= len(data) and data[at] != 0x2C:
        if data[at] != 0x21:
            # Pillow steps over what it does not know.
            at, blocks = at + 1, blocks + 1
        else:
            at += 2
            while at < len(data) and data[at]:
                at, blocks = at + 1 + data[at], blocks + 1
                if blocks > MAX_BLOCKS:
                    return True
            at, blocks = at + 1, blocks + 1
        if blocks > MAX_BLOCKS:
            return True
    return False


def _webp(data: bytes) -> bool:
    at, chunks, frames = 12, 0, 0
    while at + 8 <= len(data):
        if data[at : at + 4] == b"ANMF":
            frames += 1
        else:
            chunks += 1
        if chunks > MAX_BLOCKS or frames > MAX_PIXEL_BLOCKS:
            return True
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return False


_WALKS: dict[str, Callable[[bytes], bool]] = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "WEBP": _webp}
