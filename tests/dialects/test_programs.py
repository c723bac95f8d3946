"""What programs send that are aimed here, request by request: taken, with its effect, and what has none is said to have none."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
from PIL import Image

from tests.conftest import Tenant, data_uri, encoded

ONE, OTHER = "PICTURE", "ANOTHER PICTURE"
WIDE_SEED = 360139647746456
"""As an interface for ComfyUI draws one."""

REPLICATE = "/v1/models/darkroom/quick/predictions"
REPLICATE_2 = "/v1/models/black-forest-labs/flux-2-dev/predictions"
FAL, FAL_2 = "/fal-ai/quick", "/fal-ai/flux-2/edit"
BFL, BFL_2 = "/v1/flux-kontext-dev", "/v1/flux-2-dev"
RUNPOD, RUNPOD_2 = "/v2/quick/run", "/v2/flux-2-dev/run"
OPENAI = "/v1/images/edits"


@dataclass(frozen=True)
class Sent:
    """A request of a program: what of it changes nothing, how many pictures were read, and what else the generation says."""

    path: str
    fields: dict[str, Any]
    ignored: tuple[str, ...] = ()
    pictures: int = 1
    said: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


PROGRAMS = {
    "Vercel AI SDK, Replicate": Sent(REPLICATE, {"num_outputs": 1, "image": ONE, "aspect_ratio": "1:1"}),
    "Vercel AI SDK, Replicate, size": Sent(
        REPLICATE, {"num_outputs": 1, "image": ONE, "size": "512x256"}, said={"width": 512, "height": 256}
    ),
    "Vercel AI SDK, Replicate, FLUX.2": Sent(
        REPLICATE_2, {"num_outputs": 1, "input_image": ONE, "input_image_2": OTHER}, pictures=2
    ),
    "Hugging Face, Replicate": Sent(
        REPLICATE, {"image": ONE, "images": [ONE], "input_image": ONE, "input_images": [ONE]}
    ),
    "Hugging Face, Replicate, text to image": Sent(
        REPLICATE_2,
        {
            "guidance_scale": 3.5,
            "num_inference_steps": 1,
            "scheduler": "ddim",
            "negative_prompt": "dull",
            "width": 256,
            "height": 256,
        },
        ignored=("scheduler", "negative_prompt"),
        pictures=0,
        said={"width": 256, "height": 256},
    ),
    "Replicate's page of flux-kontext-pro": Sent(
        REPLICATE,
        {"input_image": ONE, "safety_tolerance": 2, "prompt_upsampling": False},
        ignored=("safety_tolerance",),
    ),
    "Replicate's page of flux-2-pro": Sent(
        REPLICATE_2, {"input_images": [ONE, OTHER], "resolution": "1 MP", "aspect_ratio": "1:1"}, pictures=2
    ),
    "Replicate's page of flux-2-klein": Sent(
        REPLICATE_2, {"images": [ONE], "output_megapixels": "0.25", "go_fast": True}, ignored=("go_fast",)
    ),
    "Replicate, multi-image Kontext": Sent(REPLICATE, {"input_image_1": ONE, "input_image_2": OTHER}, pictures=2),
    "Hugging Face, fal": Sent(FAL, {"image_url": ONE, "image_urls": [ONE]}),
    "Vercel AI SDK, fal": Sent(
        FAL,
        {"image_url": ONE, "image_size": "square_hd", "num_images": 1, "safety_tolerance": "2", "loras": []},
        ignored=("safety_tolerance",),
    ),
    "Vercel AI SDK, fal, safety as a number": Sent(
        FAL, {"image_url": ONE, "safety_tolerance": 5}, ignored=("safety_tolerance",)
    ),
    "fal, FLUX.2 by path": Sent(
        FAL_2, {"image_urls": [ONE, OTHER], "acceleration": "regular"}, ignored=("acceleration",), pictures=2
    ),
    "fal, flux-pro/kontext/max/multi": Sent(
        "/fal-ai/flux-pro/kontext/max/multi", {"image_urls": [ONE, OTHER], "num_inference_steps": 1}, pictures=2
    ),
    "fal, flux-kontext-lora/inpaint": Sent(
        "/fal-ai/flux-kontext-lora/inpaint",
        {"image_url": ONE, "reference_image_url": OTHER, "mask_url": ONE, "strength": 0.5, "num_inference_steps": 2},
        pictures=2,
    ),
    "Vercel AI SDK, Black Forest Labs, Kontext": Sent(
        BFL,
        {"input_image": ONE, "aspect_ratio": "4:3", "width": 1024, "height": 768, "steps": 1},
        ignored=("height", "width"),
    ),
    "Vercel AI SDK, Black Forest Labs, FLUX.2": Sent(
        BFL_2, {"input_image": ONE, "input_image_2": OTHER, "aspect_ratio": "1:1", "steps": 1}, pictures=2
    ),
    "Vercel AI SDK, Black Forest Labs, FLUX.2, size": Sent(
        BFL_2,
        {"input_image": ONE, "aspect_ratio": "1:1", "width": 256, "height": 256, "steps": 1, "raw": True},
        ignored=("raw", "aspect_ratio"),
        said={"width": 256, "height": 256},
    ),
    "Black Forest Labs, WebP and a preview's name": Sent(
        "/v1/flux-2-pro-preview",
        {"output_format": "webp", "steps": 1, "disable_pup": True},
        ignored=("disable_pup",),
        pictures=0,
    ),
    "RunPod's provider for the AI SDK, Kontext": Sent(
        RUNPOD,
        {
            "image": ONE,
            "size": "1024*1024",
            "negative_prompt": "",
            "num_inference_steps": 28,
            "maxPollAttempts": 60,
            "pollIntervalMillis": 5000,
        },
        ignored=("maxPollAttempts", "pollIntervalMillis"),
    ),
    "RunPod's provider for the AI SDK, FLUX": Sent(
        RUNPOD_2,
        {"width": 256, "height": 256, "image_format": "png", "num_inference_steps": 1, "negative_prompt": "x"},
        ignored=("negative_prompt",),
        pictures=0,
        said={"width": 256, "height": 256},
    ),
    "OpenAI SDK": Sent(
        OPENAI, {"safety_identifier": "user-7", "style": "vivid"}, ignored=("style", "safety_identifier")
    ),
    "Azure's client": Sent(OPENAI, {}, headers={"api-key": "KEY"}),
    **{
        f"{name} with a seed of 64 bits": Sent(path, {**fields, "seed": WIDE_SEED}, said={"seed": WIDE_SEED % 2**32})
        for name, path, fields in (
            ("Replicate", REPLICATE, {"input_image": ONE}),
            ("fal", FAL, {"image_url": ONE}),
            ("Black Forest Labs", BFL, {"input_image": ONE, "steps": 1}),
            ("RunPod", RUNPOD, {"image": ONE}),
            ("OpenAI", OPENAI, {}),
        )
    },
}


@pytest.fixture(scope="module")
def shown() -> dict[str, str]:
    return {
        ONE: data_uri(encoded(Image.new("RGB", (96, 64), "red"), "PNG")),
        OTHER: data_uri(encoded(Image.new("RGB", (96, 64), "blue"), "PNG")),
    }


def _filled(value: Any, shown: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_filled(one, shown) for one in value]
    if isinstance(value, dict):
        return {name: _filled(one, shown) for name, one in value.items()}
    return shown.get(value, value) if isinstance(value, str) else value


def _body(path: str, fields: dict[str, Any]) -> dict[str, Any]:
    plain = {"prompt": "make it blue", **fields}
    if path == OPENAI:
        return {"model": "quick", "images": [{"image_url": ONE}], "response_format": "url", **plain}
    return {"input": plain} if path.startswith(("/v2", "/v1/models")) else plain


def _send(iris: Tenant, path: str, body: dict[str, Any], headers: dict[str, str]) -> requests.Response:
    own = {name: iris.key if value == "KEY" else value for name, value in headers.items()} or iris.headers
    return requests.post(iris.url + path, json=body, headers=own, timeout=60)


def _id(answer: requests.Response) -> str:
    told = answer.json()
    id_ = told.get("id") or told.get("request_id") or answer.headers["x-request-id"]
    return str(id_).removesuffix("-u1")


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_program_sends_is_taken(iris: Tenant, shown: dict[str, str], name: str) -> None:
    sent = PROGRAMS[name]
    answer = _send(iris, sent.path, _filled(_body(sent.path, sent.fields), shown), sent.headers)
    assert answer.status_code in (200, 201), answer.text
    told = answer.headers.get("Darkroom-Ignored", "")
    made = iris.finished(_id(answer))
    assert made["status"] == "succeeded", made
    assert (set(filter(None, told.split(", "))), set(made["ignored"])) == (set(sent.ignored), set(sent.ignored))
    read = made.get("input_image", [])
    assert len([read] if isinstance(read, str) else read) == sent.pictures
    assert {key: made[key] for key in sent.said} == sent.said


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        (REPLICATE, {"input_image": ONE, "image": OTHER}, "image"),
        (REPLICATE, {"input_images": [ONE, OTHER], "images": [ONE, "ftp://x"]}, "images"),
        (FAL, {"image_url": OTHER, "image_urls": [ONE, ONE]}, "image_url"),
        (RUNPOD, {"image": ONE, "images": [OTHER]}, "images"),
        (OPENAI, {"image": ONE, "images": [{"image_url": OTHER}]}, "images"),
    ],
)
def test_really_different_pictures_under_names_that_mean_the_same_are_refused_by_name(
    iris: Tenant, shown: dict[str, str], path: str, fields: dict[str, Any], named: str
) -> None:
    refused = _send(iris, path, _filled(_body(path, fields), shown), {})
    assert 400 <= refused.status_code < 500
    assert f"{named} " in refused.text


def test_fields_that_mean_the_same_may_say_more_and_less(iris: Tenant, shown: dict[str, str]) -> None:
    answer = _send(iris, REPLICATE, _filled(_body(REPLICATE, {"input_images": [ONE, OTHER], "image": ONE}), shown), {})
    assert len(iris.finished(_id(answer))["input_image"]) == 2


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/flux-kontext-pro", {"steps": 1}),
        ("/v1/models/black-forest-labs/flux-kontext-max/predictions", {"num_inference_steps": 1}),
        ("/fal-ai/flux-pro/kontext/text-to-image", {"num_inference_steps": 1}),
    ],
)
def test_a_name_that_makes_pictures_from_text_leads_to_a_model_that_does(
    iris: Tenant, path: str, fields: dict[str, Any]
) -> None:
    answer = _send(iris, path, _body(path, fields), {})
    assert answer.headers["Darkroom-Model"] == "flux-2-dev"
    made = iris.finished(_id(answer))
    assert (made["status"], made["model_name"]) == ("succeeded", "flux-2-dev")


def test_a_name_that_does_not_still_needs_a_picture(iris: Tenant) -> None:
    for path, named in ((BFL, "input_image"), (REPLICATE, "input_image"), ("/fal-ai/flux-kontext/dev", "image_url")):
        refused = _send(iris, path, _body(path, {}), {})
        assert refused.status_code == 422
        assert f"{named} is required" in refused.text


def test_several_outputs_of_a_prediction_are_a_list(iris: Tenant, shown: dict[str, str]) -> None:
    body = _filled(_body(REPLICATE, {"input_image": ONE, "num_outputs": 3, "seed": 5}), shown)
    made = iris.post(REPLICATE, body, headers={"Prefer": "wait=30"}).json()
    assert (made["status"], len(made["output"])) == ("succeeded", 3)
    for url in made["output"]:
        assert requests.get(url, timeout=10).headers["content-type"] == "image/webp"
    assert iris.get(f"/v1/predictions/{made['id']}").json()["output"] == made["output"]
    listed = [one for one in iris.get("/v1/predictions").json()["results"] if one["id"] == made["id"]]
    assert [one["output"] for one in listed] == [made["output"]]
