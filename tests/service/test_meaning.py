"""What comes back means what was requested: the small trained model follows instructions through the whole shipped service.

A wrong packing of latents, a broken cache or a ruined precision shows here as a wrong edit, not as different noise.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageOps

from infra import embedded
from tests.conftest import PHOTOGRAPH, TENANTS, Tenant, data_uri, encoded, running_stack
from training.examination import nearest, psnr
from training.operations import NOTHING, OPERATIONS, Edit, Operation
from training.pictures import Picture, as_array
from training.sentences.held_out import HELD_OUT, held_out_pairs

SHIPPED = Path(embedded.__file__).parent / "catalog.embedded.toml"
COLOURS = ("red", "white")
VOUCHED = tuple(
    operation for operation in OPERATIONS if operation.vouched and (not operation.colour or operation.colour in COLOURS)
)
"""Of what the model card says it can do, with two of the colours."""
NO_CHANGE = ("change nothing", "hands off my photo!", "add a hat to the dog")
"""Requests for no change, and for what it cannot do."""


@pytest.fixture(scope="module")
def alice(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenant]:
    """A tenant of a stack whose models are those of `make up`."""
    folder = tmp_path_factory.mktemp("meaning")
    with running_stack(folder, DARKROOM_CATALOG=str(SHIPPED)) as stack:
        yield Tenant(stack.url, "alice", TENANTS["alice"])


@pytest.fixture(scope="module")
def photograph_256() -> Image.Image:
    """Held out of training, as large as the model renders."""
    with Image.open(PHOTOGRAPH) as image:
        return image.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS)


def _edited(tenant: Tenant, image: Image.Image, prompt: str, **more: object) -> Picture:
    asked = {"aspect_ratio": "match_input_image", "output_format": "png", "seed": 1, **more}
    found = tenant.finished(tenant.enqueue(_sent(image), model="flux-kontext-dev", prompt=prompt, **asked))
    assert found["status"] == "succeeded", found
    assert found["weights"]["name"] == "kontext-mini"
    return _downloaded(found)


def _sent(image: Image.Image) -> str:
    return data_uri(encoded(image, "PNG"))


def _downloaded(found: dict[str, Any]) -> Picture:
    with Image.open(io.BytesIO(requests.get(found["result_url"], timeout=10).content)) as made:
        return as_array(made.convert("RGB"))


def _held_out(operation: Operation) -> str:
    """A sentence that was held out of training."""
    sentence = HELD_OUT[operation.phrased_as][0]
    return sentence.replace("{colour}", operation.colour or "")


@pytest.mark.parametrize("operation", VOUCHED, ids=[operation.name for operation in VOUCHED])
def test_the_result_is_nearest_to_what_was_requested(
    alice: Tenant, photograph_256: Image.Image, operation: Operation
) -> None:
    before = as_array(photograph_256)
    after = _edited(alice, photograph_256, _held_out(operation))
    assert nearest(after, before) == Edit((operation,))
    assert not operation.tonal or psnr(after, operation.exact(before)) > 22


@pytest.mark.parametrize("prompt", NO_CHANGE)
def test_nothing_changes_where_nothing_or_the_unknown_is_requested(
    alice: Tenant, photograph_256: Image.Image, prompt: str
) -> None:
    before = as_array(photograph_256)
    after = _edited(alice, photograph_256, prompt)
    assert nearest(after, before) == Edit((NOTHING,))
    assert psnr(after, before) > 24


def test_two_operations_of_one_instruction_are_done(alice: Tenant, photograph_256: Image.Image) -> None:
    sentence, both = held_out_pairs()[0]
    before = as_array(photograph_256)
    assert nearest(_edited(alice, photograph_256, sentence), before, both) is both


def test_a_large_photograph_is_edited_small_and_that_is_said(alice: Tenant, photograph_256: Image.Image) -> None:
    sent = data_uri(encoded(photograph_256.resize((1200, 900)), "JPEG"), "image/jpeg")
    found = alice.finished(alice.enqueue(sent, model="flux-kontext-dev", prompt="make it sepia", exact_size=True))
    assert (found["width"], found["height"]) == (1200, 900)
    assert found["receipt"]["rendered"] == "288x224"
    assert "288x224" in found["fit"]


@pytest.mark.parametrize("shape", [{"aspect_ratio": "16:9"}, {"aspect_ratio": None, "width": 112, "height": 112}])
def test_a_result_of_another_shape_is_made_of_the_middle(
    alice: Tenant, photograph_256: Image.Image, shape: dict[str, object]
) -> None:
    shape = {name: value for name, value in shape.items() if value is not None}
    found = alice.finished(
        alice.enqueue(_sent(photograph_256), model="flux-kontext-dev", prompt="make it black and white",
                      output_format="png", seed=1, **shape)
    )  # fmt: skip
    after = _downloaded(found)
    height, width = after.shape[:2]
    middle = as_array(ImageOps.fit(photograph_256, (width, height), Image.Resampling.LANCZOS))
    (black_and_white,) = (operation for operation in OPERATIONS if operation.name == "black and white")
    assert psnr(after, black_and_white.exact(middle)) > 20
    assert ("cropped" in found["fit"]) == (width != height)


def test_the_same_seed_gives_the_same_pixels(alice: Tenant, photograph_256: Image.Image) -> None:
    first, second = (_edited(alice, photograph_256, "make it black and white") for _ in range(2))
    assert np.array_equal(first, second)
