"""Pixels before and after the GPU: decode what came in, fit it to what the model reads, encode what came out."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import ExifTags, Image, ImageChops, ImageCms, ImageOps

from storage import pictures
from storage.contracts import edits, errors
from storage.contracts.geometry import Geometry, Size

WORKING_SIDE = 2048
"""References are reduced to this many pixels a side before anything else; models read about one megapixel."""

STITCHED_HEIGHT = 1024

WEBP_METHOD = 2
"""Method 2 takes 29 ms for a megapixel, method 4 68 ms, for 5 % fewer bytes and half a decibel (quality 80)."""
PNG_LEVEL = 1
"""Level 1 takes 50 to 100 ms for a megapixel, level 6 200 ms, for 10 % fewer bytes."""

_ASCII = b"ASCII\0\0\0"
"""How EXIF says that a user comment is ASCII."""

_SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A picture ready for a model, and the size in pixels it came in, upright."""

    image: Image.Image
    original: Size


def decode(data: bytes, field: str) -> Decoded:
    """Decode a picture's first frame: upright, sRGB, transparency on white, at most `WORKING_SIDE` pixels a side.

    Raises `errors.InvalidInputError` naming `field`.
    """
    return _decoded(data, field, _srgb)


def decode_mask(data: bytes, field: str, channel: edits.MaskChannel) -> Decoded:
    """Decode a mask, white where to paint (mode L). Raises `errors.InvalidInputError` naming `field`."""
    return _decoded(data, field, _transparency if channel == "alpha" else lambda image: _srgb(image).convert("L"))


def _decoded(data: bytes, field: str, converted: Callable[[Image.Image], Image.Image]) -> Decoded:
    header = pictures.inspect(data, field)
    try:
        file = Image.open(io.BytesIO(data), formats=pictures.FORMATS)
        if file.format in ("JPEG", "MPO"):
            file.draft("RGB", (WORKING_SIDE, WORKING_SIDE))
        file.load()
        image = converted(_upright(file))
    except (OSError, ValueError, SyntaxError, MemoryError) as exc:
        raise errors.InvalidInputError(f"{field} is a damaged or truncated picture", field=field) from exc
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS)
    on_its_side = (image.width > image.height) != (header.width > header.height) and image.width != image.height
    width, height = (header.height, header.width) if on_its_side else (header.width, header.height)
    return Decoded(image=image, original=Size(width=width, height=height))


def _transparency(image: Image.Image) -> Image.Image:
    return ImageChops.invert(image.convert("RGBA").getchannel("A"))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError):
        return image  # a broken EXIF block says nothing about the pixels


def _srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        # 16 bits a channel: Pillow's own conversion would clip everything above 255 to white.
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    elif profile and len(profile) < 2**20 and image.mode in ("RGB", "L", "CMYK"):
        image = _from_profile(image, profile)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(opaque, image.convert("RGBA"))
    return image.convert("RGB")


def _from_profile(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        return image  # a broken profile is as good as none


def fitted(image: Image.Image, size: Size) -> Image.Image:
    """The picture scaled to exactly this size. Callers choose a size of nearly the same aspect ratio."""
    if image.size == (size.width, size.height):
        return image
    return image.resize((size.width, size.height), Image.Resampling.LANCZOS)


def stitched(images: Sequence[Image.Image]) -> Image.Image:
    """The pictures side by side, all as high as the first or `STITCHED_HEIGHT`."""
    height = min(images[0].height, STITCHED_HEIGHT)
    scaled = [
        fitted(image, Size(width=max(1, round(image.width * height / image.height)), height=height)) for image in images
    ]
    whole = Image.new("RGB", (sum(image.width for image in scaled), height))
    left = 0
    for image in scaled:
        whole.paste(image, (left, 0))
        left += image.width
    return whole


def finished(image: Image.Image, geometry: Geometry) -> Image.Image:
    """What was rendered, at the size that was asked for."""
    if geometry.cropped:
        left = (image.width - geometry.output.width) // 2
        top = (image.height - geometry.output.height) // 2
        return image.crop((left, top, left + geometry.output.width, top + geometry.output.height))
    return fitted(image, geometry.output)


def encode(image: Image.Image, output_format: edits.OutputFormat, quality: int, receipt: str | None = None) -> bytes:
    """Encode; `quality` is 0 to 100 and means nothing for PNG. The receipt (JSON) goes into the file's EXIF user comment."""
    buffer = io.BytesIO()
    exif = Image.Exif()
    if receipt is not None:
        exif[ExifTags.Base.Software] = "Darkroom"
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _ASCII + receipt.encode(
            "ascii", "backslashreplace"
        )
    if output_format == "webp":
        image.save(buffer, "WEBP", quality=quality, method=WEBP_METHOD, exif=exif)
    elif output_format == "jpeg":
        image.save(buffer, "JPEG", quality=quality, exif=exif)
    else:
        image.save(buffer, "PNG", compress_level=PNG_LEVEL, exif=exif)
    return buffer.getvalue()


def receipt_in(image: Image.Image) -> str | None:
    """The receipt that a file carries, if it does."""
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    return comment.removeprefix(_ASCII).decode("ascii") if isinstance(comment, bytes) else None
