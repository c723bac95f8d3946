"""Odd pictures that must work."""

import numpy as np
import pytest
from PIL import Image

from tests.conftest import PHOTOGRAPH, Tenant, data_uri, encoded

pytestmark = pytest.mark.usefixtures("nobody_waits")

RED = Image.new("RGB", (64, 48), "red")


def _exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.open(PHOTOGRAPH).resize((640, 320)), "JPEG", exif=exif)


def _phone_photo() -> bytes:
    """Twelve megapixels of a real photograph with grain: as large as a phone's JPEG."""
    photograph = np.asarray(Image.open(PHOTOGRAPH).resize((4000, 3000), Image.Resampling.BICUBIC)).astype("int16")
    grain = np.random.default_rng(1).normal(0, 8, photograph.shape)
    return encoded(Image.fromarray((photograph + grain).clip(0, 255).astype("uint8")), "JPEG", quality=90)


PICTURES = {
    "one pixel": lambda: encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
    "animated gif": lambda: encoded(RED, "GIF", save_all=True, append_images=[Image.new("RGB", RED.size, "blue")]),
    "cmyk jpeg": lambda: encoded(RED.convert("CMYK"), "JPEG"),
    "rotated jpeg": _exif_rotated,
    "16-bit png": lambda: encoded(Image.fromarray(np.full((32, 32), 40_000, dtype="uint16")), "PNG"),
    "palette png": lambda: encoded(RED.convert("P"), "PNG"),
    "transparent png": lambda: encoded(Image.new("RGBA", (32, 32), (255, 0, 0, 60)), "PNG"),
    "grey with alpha": lambda: encoded(Image.new("LA", (32, 32), (90, 60)), "PNG"),
    "phone photo": _phone_photo,
}


@pytest.mark.parametrize("name", PICTURES)
def test_it_is_edited(alice: Tenant, name: str) -> None:
    data = PICTURES[name]()
    id_ = alice.enqueue(
        data_uri(data), model="flux-kontext-dev", num_inference_steps=4, aspect_ratio="match_input_image"
    )
    found = alice.finished(id_)
    assert found["status"] == "succeeded", found
    if name == "rotated jpeg":
        assert (found["width"], found["height"]) == (96, 176)
    if name == "phone photo":
        assert len(data) > 3_000_000
        assert (found["width"], found["height"]) == (144, 112)


@pytest.mark.parametrize(
    ("ratio", "size"),
    [("1:1", (128, 128)), ("16:9", (176, 96)), ("9:16", (96, 176)), ("21:9", (192, 80)), ("4:3", (144, 112))],
)
def test_the_aspect_ratio_asked_for_comes_back(alice: Tenant, tiny: str, ratio: str, size: tuple[int, int]) -> None:
    found = alice.finished(alice.enqueue(tiny, aspect_ratio=ratio))
    assert (found["width"], found["height"]) == size
