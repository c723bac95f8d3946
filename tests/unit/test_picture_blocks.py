"""A picture's file of very many blocks is refused before a library joins, reads or skips them one by one."""

import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from storage import picture_blocks, pictures
from storage.contracts import errors
from tests.conftest import encoded

FEW, MANY = picture_blocks.MAX_BLOCKS // 2 - 10, picture_blocks.MAX_BLOCKS + 1


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _picture(format_: str) -> bytes:
    return encoded(Image.new("P" if format_ == "GIF" else "RGB", (64, 48)), format_)


def _jpeg(block: bytes) -> Callable[[int], bytes]:
    plain = _picture("JPEG")
    return lambda count: plain[:2] + block * count + plain[2:]


def _png(block: bytes, *, after: bool = False) -> Callable[[int], bytes]:
    plain = _picture("PNG")
    at = len(plain) - 12 if after else plain.index(b"IDAT") - 4
    return lambda count: plain[:at] + block * count + plain[at:]


def _gif(block: bytes, *, begin: bytes = b"", end: bytes = b"") -> Callable[[int], bytes]:
    plain = _picture("GIF")
    at = 13 + 3 * 2 ** ((plain[10] & 7) + 1)
    return lambda count: plain[:at] + begin + block * count + end + plain[at:]


def _webp(block: bytes) -> Callable[[int], bytes]:
    plain = _picture("WEBP")
    canvas = struct.pack("<4sIIBBBBBB", b"VP8X", 10, 0, 63, 0, 0, 47, 0, 0)

    def made(count: int) -> bytes:
        body = b"WEBP" + canvas + block * count + plain[12:]
        return b"RIFF" + struct.pack("<I", len(body)) + body

    return made


BLOCKS = {
    "jpeg comments": _jpeg(_segment(0xFE, b"x")),
    "jpeg profiles": _jpeg(_segment(0xE2, b"ICC_PROFILE\0\x01\x01x")),
    "jpeg photoshop": _jpeg(_segment(0xED, b"Photoshop 3.0\0")),
    "jpeg quantisation tables": _jpeg(_segment(0xDB, bytes(65))),
    "jpeg restart markers": _jpeg(b"\xff\xd0"),
    "jpeg fill bytes": _jpeg(b"\xff"),
    "png texts": _png(_chunk(b"tEXt", b"a\0b")),
    "png texts after the pixels": _png(_chunk(b"tEXt", b"a\0b"), after=True),
    "png private chunks": _png(_chunk(b"prIv", b"")),
    "gif comments": _gif(b"\x21\xfe\x01x\0"),
    "gif one long comment": _gif(b"\xff" + b"x" * 255, begin=b"\x21\xfe", end=b"\0"),
    "gif controls": _gif(b"\x21\xf9\x04\0\0\0\0\0"),
    "webp unknown chunks": _webp(b"JUNK\0\0\0\0"),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_very_many_blocks_are_refused_and_many_are_not(kind: str) -> None:
    of = BLOCKS[kind]
    assert pictures.inspect(of(FEW), "input_image").width == 64
    with pytest.raises(errors.InvalidInputError, match="input_image has more than 1000 blocks of metadata"):
        pictures.inspect(of(MANY), "input_image")


def test_exif_in_many_segments_is_refused_though_few_others_are_there() -> None:
    of = _jpeg(_segment(0xE1, b"Exif\0\0x"))
    assert pictures.inspect(of(picture_blocks.MAX_EXIF_SEGMENTS), "input_image").width == 64
    with pytest.raises(errors.InvalidInputError, match="blocks of metadata"):
        pictures.inspect(of(picture_blocks.MAX_EXIF_SEGMENTS + 1), "input_image")


def test_junk_between_segments_is_refused_by_its_length() -> None:
    plain = _picture("JPEG")
    segment = _segment(0xFE, b"x")
    with pytest.raises(errors.InvalidInputError, match="blocks of metadata"):
        pictures.inspect(plain[:2] + segment + b"\0" * (picture_blocks.MAX_JUNK_BYTES + 1) + plain[2:], "input_image")


def test_pixels_in_many_pieces_are_a_picture_up_to_a_limit() -> None:
    of = _png(_chunk(b"IDAT", b""))
    assert pictures.inspect(of(MANY), "input_image").width == 64
    with pytest.raises(errors.InvalidInputError, match="blocks of metadata"):
        pictures.inspect(of(picture_blocks.MAX_PIXEL_BLOCKS + 1), "input_image")


def test_the_largest_file_of_tiny_blocks_is_walked_only_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(bytes):
        looked = 0

        def __getitem__(self, key: object) -> object:
            Counted.looked += 1
            return super().__getitem__(key)  # type: ignore[call-overload]

    for of in BLOCKS.values():
        Counted.looked = 0
        assert picture_blocks.too_many(Counted(of(20 * MANY)), picture_blocks.format_of(of(0)) or "")
        assert Counted.looked < 20 * MANY
