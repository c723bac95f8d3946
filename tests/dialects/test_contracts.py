"""What each dialect's fields take: the default (absent), both ends of each range, and just outside of it, as their pages say."""

from dataclasses import dataclass
from typing import Any

import pytest
import requests

from infra import embedded
from tests.conftest import TENANTS

MOST = 2**32 - 1


@dataclass(frozen=True)
class Contract:
    """A dialect's route, a body that is enough, and per field what is taken and what is refused.

    `within` is the key of the body that holds the fields, if they are not at its top.
    """

    route: str
    body: dict[str, Any]
    fields: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]]
    refusal: int
    within: str | None = None
    passes_over: bool = False
    """Whether fields that the original does not know are passed over, as it does."""


NATIVE_SEED = ((0, MOST), (-1, MOST + 1, 1.5, "7"))
SEED = ((0, MOST, 360139647746456, 2**64 - 1), (-1, 2**64, 1.5, "7"))
"""Of up to 64 bits, as interfaces for ComfyUI draw them."""
STEPS = ((1, 50), (0, 51, 1.5, "28"))
GUIDANCE = ((0, 10, 2.5), (-0.1, 10.1, "2"))
PROMPT = (("x", "x" * 10_000), ("", " ", "x" * 10_001, 7, None))
BOOLEAN = ((False,), ("no", 2))

CONTRACTS = {
    "oxen": Contract(
        "/api/ai/queue",
        {"model": "quick", "prompt": "x", "input_image": "PICTURE"},
        {
            "prompt": PROMPT,
            "num_generations": ((1, 4), (0, 5, "2")),
            "aspect_ratio": (("1:1", "16:9", "9:21", "match_input_image"), ("16:10", 1)),
            "num_inference_steps": ((4, 50), (3, 51)),
            "guidance": GUIDANCE,
            "seed": NATIVE_SEED,
            "output_format": (("webp", "jpg", "png"), ("jpeg", "gif")),
            "output_quality": ((0, 100), (-1, 101)),
            "disable_safety_checker": BOOLEAN,
            "response_format": (("url",), ("b64_json", "x")),
        },
        400,
    ),
    "runpod": Contract(
        "/v2/quick/run",
        {"input": {"prompt": "x", "image": "PICTURE"}},
        {
            "prompt": PROMPT,
            "negative_prompt": (("", "x" * 10_000), ("x" * 10_001,)),
            "size": (
                ("64*64", "1472*1140", "1328*1328", "1024x1024"),
                ("1024", "63*64", "2049*64", "2000*2000", "a*b"),
            ),
            "num_inference_steps": STEPS,
            "guidance": GUIDANCE,
            "seed": ((-1, *SEED[0]), (-2, *SEED[1][1:])),
            "output_format": (("png", "jpeg"), ("webp", "jpg")),
            "enable_safety_checker": ((True,), (False, "yes")),
            "aspect_ratio": (("21:9", "match_input_image"), ("16:10",)),
        },
        400,
        "input",
        passes_over=True,
    ),
    "runpod policy": Contract(
        "/v2/quick/run",
        {"input": {"prompt": "x", "image": "PICTURE"}, "policy": {}},
        {
            "executionTimeout": ((5000, 604_800_000), (4999, 604_800_001)),
            "ttl": ((10_000, 604_800_000), (9999, 604_800_001)),
            "lowPriority": ((True, False), ("low",)),
        },
        400,
        "policy",
        passes_over=True,
    ),
    "openai": Contract(
        "/v1/images/edits",
        {
            "model": "quick",
            "prompt": "x",
            "images": [{"image_url": "PICTURE"}],
            "size": "64x64",
            "response_format": "url",
        },
        {
            "prompt": (("x", "x" * 32_000), ("", "x" * 32_001)),
            "n": ((1, 10), (0, 11)),
            "size": (("auto", "1024x1024", "1536x1024", "256x256"), ("1024", "32x32", "4096x4096")),
            "quality": (("auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"), ("best",)),
            "complexity": (("low", "high"), ("max",)),
            "response_format": (("url", "b64_json"), ("json",)),
            "output_format": (("png", "jpeg", "webp"), ("gif",)),
            "output_compression": ((0, 100), (-1, 101)),
            "background": (("auto", "opaque"), ("transparent",)),
            "input_fidelity": (("high", "low"), ("medium",)),
            "moderation": (("auto", "low"), ("off",)),
            "partial_images": ((0, 3), (-1, 4)),
            "seed": SEED,
            "num_inference_steps": STEPS,
            "guidance": GUIDANCE,
        },
        400,
    ),
    "replicate": Contract(
        "/v1/models/darkroom/quick/predictions",
        {"input": {"prompt": "x", "input_image": "PICTURE"}},
        {
            "prompt": PROMPT,
            "aspect_ratio": (("match_input_image", "21:9", "1:2"), ("16:10", "custom")),
            "num_inference_steps": STEPS,
            "guidance": GUIDANCE,
            "seed": SEED,
            "output_format": (("webp", "jpg", "png"), ("jpeg",)),
            "output_quality": ((0, 100), (-1, 101)),
            "megapixels": (("0.25", "0.5", "1", "2"), ("3",)),
            "output_megapixels": (("0.25", "0.5", "1", "2", "4"), ("3", 1)),
            "resolution": (("match_input_image", "0.5 MP", "1 MP", "4 MP"), ("1MP", 1)),
            "safety_tolerance": ((0, 2, 6), (-1, 7, "2")),
            "prompt_upsampling": ((False,), (True, "no")),
            "num_outputs": ((1, 4), (0, 5, "2")),
            "size": (("1024x768", "64x64"), ("1024", "32x32")),
            "guidance_scale": ((0, 20), (-0.1, 20.1)),
            "disable_safety_checker": BOOLEAN,
            "go_fast": ((True, False), ("fast",)),
        },
        422,
        "input",
        passes_over=True,
    ),
    "fal": Contract(
        "/fal-ai/quick",
        {"prompt": "x", "image_url": "PICTURE"},
        {
            "prompt": PROMPT,
            "num_inference_steps": STEPS,
            "guidance_scale": ((0, 20), (-0.1, 20.1)),
            "seed": SEED,
            "num_images": ((1, 4), (0, 5)),
            "output_format": (("jpeg", "png", "webp"), ("gif",)),
            "image_size": (("square_hd", "landscape_16_9", {"width": 64, "height": 96}), ("tiny", {"width": 64}, 7)),
            "resolution_mode": (("auto", "match_input", "16:9"), ("16:10",)),
            "aspect_ratio": (("21:9", "9:21"), ("16:10",)),
            "acceleration": (("none", "regular", "high"), ("max",)),
            "enhance_prompt": ((False,), (True,)),
            "sync_mode": ((True, False), ("yes",)),
            "enable_safety_checker": ((True,), (False,)),
            "safety_tolerance": (("1", "6", 2), ("0", 7, "x")),
        },
        422,
        passes_over=True,
    ),
    "bfl kontext": Contract(
        "/v1/flux-kontext-dev",
        {"prompt": "x", "input_image": "PICTURE", "steps": 1},
        {
            "prompt": PROMPT,
            "seed": SEED,
            "aspect_ratio": (("21:9", "9:21", "1:1"), ("22:9", "9:22", "1:0", "x")),
            "output_format": (("png", "jpeg", "webp"), ("gif",)),
            "safety_tolerance": ((0, 6), (-1, 7)),
            "prompt_upsampling": ((False,), (True,)),
            "guidance": ((1.5, 10), (1.4, 10.1)),
            "steps": ((1,), (0, 51)),
        },
        422,
        passes_over=True,
    ),
    "bfl flux-2": Contract(
        "/v1/flux-2-dev",
        {"prompt": "x", "steps": 1},
        {
            "safety_tolerance": ((0, 5), (-1, 6)),
            "output_format": (("png", "jpeg", "webp"), ("gif",)),
            "width": ((0,), (-1, 2049, 64)),
            "aspect_ratio": (("21:9", "1:1"), ("22:9", "x")),
            "prompt_upsampling": ((True, False), ("yes",)),
        },
        422,
        passes_over=True,
    ),
    "nim": Contract(
        "/v1/infer",
        {"prompt": "x", "image": "PICTURE", "steps": 20},
        {
            "prompt": (("x",), ("", "x" * 10_001)),
            "aspect_ratio": (("match_input_image", "9:21", "21:9"), ("16:9",)),
            "width": ((672,), (671, 1000, 1569)),
            "height": ((1568,), (671, 1000, 1569)),
            "cfg_scale": ((1.01, 9), (1, 9.1)),
            "steps": ((20,), (19, 51)),
            "seed": ((0, MOST), (-1, MOST + 1)),
            "samples": ((1,), (0, 2)),
            "disable_safety_checker": ((False,), (True,)),
            "negative_prompt": ((), ("x",)),
        },
        422,
    ),
}

CASES = [
    pytest.param(name, field, value, taken, id=f"{name}-{field}-{str(value)[:20]}-{'taken' if taken else 'refused'}")
    for name, contract in CONTRACTS.items()
    for field, (allowed, refused) in contract.fields.items()
    for taken, values in ((True, allowed), (False, refused))
    for value in values
]


def _with(body: Any, picture: str) -> Any:
    if isinstance(body, dict):
        return {key: _with(value, picture) for key, value in body.items()}
    if isinstance(body, list):
        return [_with(value, picture) for value in body]
    return picture if body == "PICTURE" else body


def _send(stack: embedded.Stack, contract: Contract, body: dict[str, Any]) -> requests.Response:
    key = TENANTS["iris"]
    return requests.post(stack.url + contract.route, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60)


@pytest.mark.parametrize(("name", "field", "value", "taken"), CASES)
def test_a_field_takes_what_its_page_says(
    stack: embedded.Stack, tiny: str, name: str, field: str, value: Any, taken: bool
) -> None:
    contract = CONTRACTS[name]
    body = _with(contract.body, tiny)
    (body[contract.within] if contract.within else body)[field] = value
    answer = _send(stack, contract, body)
    if taken:
        assert answer.status_code in (200, 201), answer.text
    else:
        assert answer.status_code == contract.refusal, answer.text
        assert field in answer.text or field == "prompt", "the error names the field"


@pytest.mark.parametrize("name", CONTRACTS)
def test_defaults_are_enough_and_unknown_fields_are_refused_or_said_to_change_nothing(
    stack: embedded.Stack, tiny: str, name: str
) -> None:
    contract = CONTRACTS[name]
    body = _with(contract.body, tiny)
    assert _send(stack, contract, body).status_code in (200, 201)
    (body[contract.within] if contract.within else body)["unheard_of"] = 1
    answer = _send(stack, contract, body)
    if contract.passes_over:
        assert answer.status_code in (200, 201), answer.text
        assert answer.headers["Darkroom-Ignored"] == "unheard_of"
    else:
        assert answer.status_code == contract.refusal
        assert "unheard_of" in answer.text
