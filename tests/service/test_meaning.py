"""What comes back means what was asked for: the small trained model follows instructions through the whole service.

A wrong packing of latents, a broken cache or a ruined precision shows here as a wrong edit, not as different noise.
"""

import base64
import io

import numpy as np
import pytest
import requests
from PIL import Image

from tests.conftest import PHOTOGRAPH, Tenant, encoded
from training.examination import psnr
from training.operations import OPERATIONS, Operation
from training.pictures import Picture, as_array

VOUCHED = tuple(operation for operation in OPERATIONS if operation.vouched)
"""What the model card says it can do."""


@pytest.fixture(scope="module")
def photograph_128() -> Image.Image:
    """Held out of training, as large as the model renders."""
    with Image.open(PHOTOGRAPH) as image:
        return image.convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)


def _edited(tenant: Tenant, image: Image.Image, prompt: str, **more: object) -> Picture:
    sent = f"data:image/png;base64,{base64.b64encode(encoded(image, 'PNG')).decode()}"
    asked = {"aspect_ratio": "match_input_image", "output_format": "png", "num_inference_steps": 8, "seed": 1, **more}
    found = tenant.finished(tenant.enqueue(sent, model="flux-kontext-dev", prompt=prompt, **asked))
    assert found["status"] == "succeeded", found
    assert found["weights"]["name"] == "kontext-mini"
    with Image.open(io.BytesIO(requests.get(found["result_url"], timeout=10).content)) as made:
        return as_array(made.convert("RGB"))


def _instruction(operation: Operation) -> str:
    """A phrasing that was held out of training, without a strength."""
    return operation.held_out[0].format(it="the picture", much="").replace("  ", " ").strip()


@pytest.mark.parametrize("operation", VOUCHED, ids=[operation.name for operation in VOUCHED])
def test_the_result_is_nearest_to_what_was_asked_for(
    alice: Tenant, photograph_128: Image.Image, operation: Operation
) -> None:
    before = as_array(photograph_128)
    after = _edited(alice, photograph_128, _instruction(operation))
    distances = {one.name: float(((after - one.exact(before)) ** 2).mean()) for one in OPERATIONS}
    assert min(distances, key=distances.__getitem__) == operation.name


def test_an_instruction_to_change_nothing_gives_the_picture_back(alice: Tenant, photograph_128: Image.Image) -> None:
    (nothing,) = (one for one in OPERATIONS if one.name == "nothing")
    after = _edited(alice, photograph_128, _instruction(nothing))
    assert psnr(after, as_array(photograph_128)) > 22


def test_a_large_photograph_is_edited_small_and_that_is_said(alice: Tenant, photograph_128: Image.Image) -> None:
    image = photograph_128.resize((1200, 900))
    sent = f"data:image/jpeg;base64,{base64.b64encode(encoded(image, 'JPEG')).decode()}"
    id_ = alice.enqueue(sent, model="flux-kontext-dev", prompt="make it sepia", exact_size=True, num_inference_steps=8)
    found = alice.finished(id_)
    assert (found["width"], found["height"]) == (1200, 900)
    assert found["receipt"]["rendered"] == "144x112"
    assert "144x112" in found["fit"]


def test_the_same_seed_gives_the_same_pixels(alice: Tenant, photograph_128: Image.Image) -> None:
    first, second = (_edited(alice, photograph_128, "make it black and white") for _ in range(2))
    assert np.array_equal(first, second)
