"""The gate for pictures: reads a file's header and refuses what may not enter, before a pixel is decoded.

Both sides use it: the API on what callers send along, workers on what they fetch. Only four formats pass; most decoder
faults are in the others (an EPS named .jpg would be rendered by Ghostscript).
"""

import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from storage import picture_blocks, png_metadata
from storage.contracts import errors

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
CONTENT_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
MAX_SIDE = 12_000
MAX_ASPECT = 20
TINY_PIXELS = 64 * 64
MAX_JPEG_SCANS = 64
"""A progressive JPEG of 353 kB with 300 scans took 15.8 s to decode."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a picture says of itself. Width and height in pixels, before any EXIF rotation; whether it may be transparent."""

    content_type: str
    width: int
    height: int
    transparent: bool


def readable(data: bytes) -> bytes:
    """A picture's file as a library reads it: without metadata that it would refuse the whole file for."""
    return png_metadata.without_large(data) if png_metadata.is_png(data) else data


def inspect(data: bytes, field: str) -> Header:
    """Check a picture's format, size and completeness.

    Raises `errors.PayloadTooLargeError` or `errors.InvalidInputError` naming `field` and what is allowed.
    """
    if len(data) > MAX_BYTES:
        message = f"{field} may have at most {MAX_BYTES // 2**20} MiB; got {len(data) / 2**20:.1f} MiB"
        raise errors.PayloadTooLargeError(message, field=field)
    container = picture_blocks.format_of(data)
    if container and picture_blocks.too_many(data, container):
        message = f"{field} has more than {picture_blocks.MAX_BLOCKS} blocks of metadata, which no real {container} picture has"
        raise errors.InvalidInputError(message, field=field)
    data = readable(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError:
            raise _too_many_pixels(field, "too many") from None
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
            raise errors.InvalidInputError(
                f"{field} must be a whole PNG, JPEG, WebP or GIF picture", field=field
            ) from None
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise _too_many_pixels(field, f"{width}x{height}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        message = f"{field} may be at most {MAX_ASPECT} times as long as wide; got {width}x{height}"
        raise errors.InvalidInputError(message, field=field)
    # Phones write several pictures into one JPEG, which Pillow calls MPO; the first is the photograph.
    transparent = "A" in image.getbands() or "transparency" in image.info
    format_ = "JPEG" if image.format == "MPO" else image.format or ""
    if not _complete(image, format_, data):
        raise errors.InvalidInputError(f"{field} is a damaged or truncated {format_} picture", field=field)
    return Header(content_type=CONTENT_TYPES[format_], width=width, height=height, transparent=transparent)


def _too_many_pixels(field: str, got: str) -> errors.InvalidInputError:
    limit = f"{MAX_PIXELS // 10**6} megapixels and {MAX_SIDE} pixels a side"
    return errors.InvalidInputError(f"{field} may have at most {limit}; got {got}", field=field)


def _complete(image: Image.Image, format_: str, data: bytes) -> bool:
    """Whether the file has its end. Cheap: no pixel is decoded, but of a tiny one."""
    if format_ == "PNG":
        try:
            image.verify()
        except Exception:
            # The single pixel of a published sample has a wrong checksum, and whatever shows pictures shows it.
            return image.width * image.height <= TINY_PIXELS and _can_be_decoded(data)
        return b"IEND" in data
    if format_ == "JPEG":
        return b"\xff\xd9" in data[2:] and data.count(b"\xff\xda") <= MAX_JPEG_SCANS
    return True


def _can_be_decoded(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data), formats=FORMATS).load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True
