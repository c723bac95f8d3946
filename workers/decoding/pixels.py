"""A picture's first frame as pixels: upright, in sRGB, without transparency, and not too large."""

import io
from collections.abc import Callable

from PIL import Image, ImageChops, ImageCms, ImageOps

from storage import pictures
from storage.contracts import errors

WORKING_SIDE = 2048
"""References are reduced to this many pixels a side before anything else; models read about one megapixel."""

_SRGB = ImageCms.createProfile("sRGB")

Size = tuple[int, int]


def decode(data: bytes, field: str) -> tuple[Image.Image, Size]:
    """A picture (mode RGB, transparency on white, at most `WORKING_SIDE` pixels a side) and the size it came in, upright.

    Raises `errors.InvalidInputError` naming `field`.
    """
    return _decoded(data, field, _srgb)


def decode_mask(data: bytes, field: str, channel: str) -> tuple[Image.Image, Size]:
    """A mask (mode L), white where to paint, and the size it came in; `channel` is `alpha` or `luminance`.

    Raises `errors.InvalidInputError` naming `field`.
    """
    return _decoded(data, field, _transparency if channel == "alpha" else lambda image: _srgb(image).convert("L"))


def _decoded(data: bytes, field: str, converted: Callable[[Image.Image], Image.Image]) -> tuple[Image.Image, Size]:
    header = pictures.inspect(data, field)
    try:
        file = Image.open(io.BytesIO(pictures.readable(data)), formats=pictures.FORMATS)
        if file.format in ("JPEG", "MPO"):
            file.draft("RGB", (WORKING_SIDE, WORKING_SIDE))
        file.load()
        image = converted(_upright(file))
    except (OSError, ValueError, SyntaxError) as exc:
        raise errors.InvalidInputError(f"{field} is a damaged or truncated picture", field=field) from exc
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS)
    on_its_side = (image.width > image.height) != (header.width > header.height) and image.width != image.height
    return image, (header.height, header.width) if on_its_side else (header.width, header.height)


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
