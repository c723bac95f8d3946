"""Which pictures enter, and what becomes of odd ones."""

import contextlib
import io
import struct
import time
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from storage import pictures as gate
from storage.contracts import errors
from storage.contracts.geometry import Size
from tests.conftest import PHOTOGRAPH, encoded
from workers import pictures
from workers.decoding import pixels
from workers.decoding.pool import Decoders


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    with contextlib.closing(Decoders(count=1)) as decoders:
        yield decoders


def _gradient(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    width, height = size
    values = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype("uint8")
    return Image.fromarray(values).convert(mode)


def bomb(width: int, height: int) -> bytes:
    """A valid PNG of many pixels in few bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * ((width // 8 + 1) * height), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_every_accepted_format_is_decoded_to_rgb(decoders: Decoders) -> None:
    for format_ in ("PNG", "JPEG", "WEBP", "GIF"):
        image = decoders.decode(encoded(_gradient(), format_), "input_image").image
        assert (image.mode, image.size) == ("RGB", (64, 48))


def test_a_jpeg_that_lies_on_its_side_is_set_upright(decoders: Decoders) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = encoded(_gradient(size=(64, 32)), "JPEG", exif=exif)
    assert decoders.decode(rotated, "input_image").image.size == (32, 64)


def test_the_size_it_came_in_is_remembered_upright(decoders: Decoders) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decoders.decode(encoded(_gradient(size=(4000, 3000)), "JPEG", exif=exif), "input_image")
    assert (decoded.original.width, decoded.original.height) == (3000, 4000)
    assert max(decoded.image.size) <= pixels.WORKING_SIDE


def test_a_phones_jpeg_of_several_pictures_is_its_first(decoders: Decoders) -> None:
    several = encoded(_gradient(), "MPO", save_all=True, append_images=[_gradient()])
    assert Image.open(io.BytesIO(several)).format == "MPO"
    assert decoders.decode(several, "input_image").image.size == (64, 48)


def test_a_cmyk_jpeg_keeps_its_colours(decoders: Decoders) -> None:
    image = decoders.decode(
        encoded(Image.new("RGB", (32, 32), (200, 30, 30)).convert("CMYK"), "JPEG", quality=95), "i"
    ).image
    red, green, blue = image.getpixel((16, 16))
    assert red > 180
    assert max(green, blue) < 60


def test_a_sixteen_bit_png_is_not_clipped_to_white(decoders: Decoders) -> None:
    values = np.full((8, 8), 32768, dtype="uint16")
    image = decoders.decode(encoded(Image.fromarray(values), "PNG"), "input_image").image
    assert image.getpixel((4, 4)) == (127, 127, 127)


def test_transparency_lies_on_white(decoders: Decoders) -> None:
    transparent = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decoders.decode(encoded(transparent, "PNG"), "input_image").image.getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([0, 0, 0] * 3 + [200, 0, 0])
    assert decoders.decode(encoded(palette, "PNG", transparency=3), "i").image.getpixel((0, 0)) == (255, 255, 255)


def test_an_animation_is_its_first_frame(decoders: Decoders) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decoders.decode(animated, "input_image").image.getpixel((8, 8)) == (255, 0, 0)


def test_one_pixel_is_a_picture(decoders: Decoders) -> None:
    assert decoders.decode(encoded(Image.new("RGB", (1, 1), "red"), "PNG"), "input_image").image.size == (1, 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "must be a whole PNG, JPEG, WebP or GIF picture"),
        (b"Hello, I am a text and not a picture at all.", "must be a whole PNG, JPEG, WebP or GIF picture"),
        (b"<html><body>404</body></html>", "must be a whole PNG, JPEG, WebP or GIF picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "must be a whole PNG, JPEG, WebP or GIF picture"),
        (encoded(_gradient(), "BMP"), "must be a whole PNG, JPEG, WebP or GIF picture"),
        (encoded(_gradient(), "PNG")[:-40], "damaged or truncated PNG"),
        (encoded(_gradient(), "WEBP")[:-10], "must be a whole PNG, JPEG, WebP or GIF picture"),
        (PHOTOGRAPH.read_bytes()[:20_000], "damaged or truncated JPEG"),
        (bomb(10_000, 8_000), "at most 50 megapixels and 12000 pixels a side; got 10000x8000"),
        (bomb(12_008, 8), "at most 50 megapixels and 12000 pixels a side"),
        (bomb(800, 8), "at most 20 times as long as wide; got 800x8"),
        (bomb(20_000, 12_000), "at most 50 megapixels"),
    ],
    ids=["empty", "text", "html", "eps", "bmp", "cut png", "cut webp", "cut jpeg", "bomb", "long", "thin", "huge bomb"],
)
def test_what_is_no_decent_picture_is_refused_by_its_header(data: bytes, reason: str) -> None:
    with pytest.raises(errors.InvalidInputError) as refused:
        gate.inspect(data, "input_image")
    assert reason in refused.value.message
    assert refused.value.field == "input_image"


def test_the_bomb_is_small_and_would_be_large() -> None:
    assert len(bomb(10_000, 8_000)) < 100_000


def test_a_picture_over_the_limit_is_refused_with_the_limit() -> None:
    with pytest.raises(errors.PayloadTooLargeError, match="at most 20 MiB"):
        gate.inspect(b"\0" * (gate.MAX_BYTES + 1), "input_image")


def test_a_jpeg_of_hundreds_of_scans_is_refused() -> None:
    data = encoded(_gradient(), "JPEG", progressive=True)
    many = data[:-2] + b"\xff\xda" * 65 + data[-2:]
    with pytest.raises(errors.InvalidInputError, match="damaged"):
        gate.inspect(many, "input_image")


def test_fitting_gives_exactly_the_size_asked_for() -> None:
    assert pictures.fitted(_gradient(), Size(width=176, height=384)).size == (176, 384)


@pytest.mark.parametrize(("output_format", "pil"), [("webp", "WEBP"), ("png", "PNG"), ("jpeg", "JPEG")])
def test_the_result_is_of_the_format_asked_for(output_format: str, pil: str) -> None:
    image = Image.open(io.BytesIO(pictures.encode(_gradient(), output_format, 80)))  # type: ignore[arg-type]
    assert (image.format, image.size) == (pil, (64, 48))


def test_quality_reaches_the_encoder() -> None:
    photograph = Image.open(PHOTOGRAPH)
    for output_format in ("webp", "jpeg"):
        sizes = [len(pictures.encode(photograph, output_format, quality)) for quality in (10, 50, 95)]  # type: ignore[arg-type]
        assert sizes == sorted(sizes)
        assert sizes[2] > 2 * sizes[0]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


LARGE = zlib.compress(bytes(2 * 2**20), 9)
METADATA = {
    "text": _chunk(b"zTXt", b"Comment\0\0" + LARGE),
    "international text": _chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    "profile": _chunk(b"iCCP", b"profile\0\0" + LARGE),
    "plain text": _chunk(b"tEXt", b"parameters\0" + b"x" * (2 * 2**20)),
}


@pytest.mark.parametrize("before", [True, False], ids=["before the pixels", "after"])
@pytest.mark.parametrize("kind", METADATA)
def test_a_png_with_large_metadata_is_read_without_it(decoders: Decoders, kind: str, before: bool) -> None:
    plain = encoded(_gradient(), "PNG")
    # The signature and the header are 33 bytes, the end is 12.
    at = 33 if before else len(plain) - 12
    odd = plain[:at] + METADATA[kind] + plain[at:]
    header = gate.inspect(odd, "image")
    assert (header.content_type, header.width, header.height) == ("image/png", 64, 48)
    assert decoders.decode(odd, "image").image.tobytes() == decoders.decode(plain, "image").image.tobytes()


def test_a_small_profile_is_heeded() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(_gradient(), "PNG", icc_profile=profile, pnginfo=_note("a few words"))
    kept = Image.open(io.BytesIO(gate.readable(data)))
    assert kept.info["icc_profile"] == profile
    assert "Comment" not in kept.info


def _note(text: str) -> PngImagePlugin.PngInfo:
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", text)
    return note


def test_a_png_that_is_cut_off_stays_one() -> None:
    plain = encoded(_gradient(), "PNG")
    odd = plain[:33] + METADATA["profile"] + plain[33:]
    for length in (8, 20, 40, len(odd) - 30):
        with pytest.raises(errors.InvalidInputError, match=r"image (must be a whole|is a damaged)"):
            gate.inspect(odd[:length], "image")


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
UPRIGHT = {
    "plain": _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "compressed": _chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
}


@pytest.mark.parametrize("kind", UPRIGHT)
def test_a_png_whose_text_says_which_side_is_up_is_set_upright(decoders: Decoders, kind: str) -> None:
    plain = encoded(_gradient(), "PNG")
    turned = plain[:33] + METADATA["plain text"] + UPRIGHT[kind] + plain[33:]
    assert decoders.decode(turned, "image").image.size == (48, 64)


def test_of_many_profiles_one_is_looked_at() -> None:
    plain = encoded(_gradient(), "PNG")
    odd = plain[:33] + 900 * METADATA["profile"] + plain[33:]
    began = time.process_time()
    assert gate.readable(odd) == plain
    assert time.process_time() - began < 0.5
