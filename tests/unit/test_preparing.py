"""Which pictures a model is given, in what size: side by side where it reads one, apart from the one that is painted in."""

from typing import Any

import pytest
from PIL import Image

from storage.contracts import edits, generations
from storage.contracts.geometry import Size
from storage.settings import StoreSettings
from tests.conftest import encoded
from workers.decoding import pixels
from workers.decoding.pool import Decoded
from workers.filters import Filters, WordFilter
from workers.leases import Lease
from workers.preparing import Prepared, Preparing

SHAPES = {"red": (64, 64), "lime": (96, 64), "blue": (64, 96), "mask": (64, 64)}


class Store:
    """Pictures of one colour, by its name."""

    def get(self, key: str) -> bytes:
        colour = "white" if key == "mask" else key
        return encoded(Image.new("RGB", SHAPES[key], colour), "PNG")


class Decoder:
    """Decodes here instead of in a child."""

    def decode(self, data: bytes, field: str) -> Decoded:
        image, (width, height) = pixels.decode(data, field)
        return Decoded(image=image, original=Size(width=width, height=height))

    def decode_mask(self, data: bytes, field: str, channel: edits.MaskChannel) -> Decoded:
        image, (width, height) = pixels.decode_mask(data, field, channel)
        return Decoded(image=image, original=Size(width=width, height=height))


def _given(*colours: str, masked: bool) -> list[Image.Image]:
    return list(_prepared(*colours, masked=masked).job.references)


def _prepared(*colours: str, masked: bool) -> Prepared:
    edit = edits.Edit(
        model="flux-kontext-dev",
        prompt="x",
        references=tuple(edits.StoredPicture(key=colour) for colour in colours),
        mask=edits.StoredPicture(key="mask") if masked else None,
        steps=1,
    )
    claim = generations.Claim(id="g", tenant="t", token=1, attempt=1, execution_limit_s=60, edit=edit, queue="q")
    fetch: Any = None
    preparing = Preparing(
        known=StoreSettings().read_catalog(),
        objects=Store(),
        filters=Filters(words=WordFilter(()), images=None),
        fetch=fetch,
        decoder=Decoder(),
    )
    prepared = preparing.prepare(Lease(claim))
    assert prepared.geometry.render == Size(width=1024, height=1024)
    return prepared


RED, LIME, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _ends(image: Image.Image) -> list[object]:
    """The colours at its left and its right."""
    return [image.getpixel((x, image.height // 2)) for x in (0, image.width - 1)]


def test_several_stand_side_by_side_for_a_model_that_reads_one() -> None:
    (whole,) = _given("red", "red", masked=False)
    assert whole.width > whole.height
    assert _ends(whole) == [RED, RED]


def test_a_result_says_that_several_were_read_as_one() -> None:
    assert _prepared("red", "lime", masked=False).geometry.note.startswith("2 pictures side by side as one; input ")
    assert "side by side" not in _prepared("red", "lime", masked=True).geometry.note
    assert "side by side" not in _prepared("red", masked=False).geometry.note


@pytest.mark.parametrize(("others", "seen"), [(["lime"], [LIME, LIME]), (["lime", "blue"], [LIME, BLUE])])
def test_a_mask_is_for_the_first_and_the_others_stand_side_by_side(
    others: list[str], seen: list[tuple[int, int, int]]
) -> None:
    painted, looked_at = _given("red", *others, masked=True)
    assert painted.size == (1024, 1024)
    assert _ends(painted) == [RED, RED]
    assert _ends(looked_at) == seen


def test_alone_the_one_that_is_painted_in_is_all_there_is() -> None:
    (painted,) = _given("red", masked=True)
    assert (painted.size, _ends(painted)) == ((1024, 1024), [RED, RED])
