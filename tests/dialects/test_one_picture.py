"""One edit is one edit: asked for in any dialect with the same parameters and seed, it is the same picture, seen by all."""

import base64
from typing import Any

import pytest
import requests

from infra import embedded
from tests.conftest import TENANTS, Tenant
from tests.dialects.conftest import PROMPT, pixels

SEED, STEPS, GUIDANCE = 41, 20, 2.5


@pytest.fixture
def ilse(stack: embedded.Stack) -> Tenant:
    return Tenant(stack.url, "ilse", TENANTS["ilse"])


def _url(ilse: Tenant, id_: str) -> bytes:
    return requests.get(ilse.finished(id_)["result_url"], timeout=10).content


def by_oxen(ilse: Tenant, image: str, format_: str) -> bytes:
    return _url(
        ilse,
        ilse.enqueue(
            image, model="flux-kontext-dev", prompt=PROMPT, seed=SEED, num_inference_steps=STEPS, guidance=GUIDANCE,
            aspect_ratio="match_input_image", output_format=format_, output_quality=95,
        ),
    )  # fmt: skip


def by_runpod(ilse: Tenant, image: str) -> bytes:
    asked = {
        "prompt": PROMPT, "image": image, "seed": SEED, "num_inference_steps": STEPS, "guidance": GUIDANCE,
        "aspect_ratio": "match_input_image",
    }  # fmt: skip
    job = ilse.post("/v2/flux-kontext-dev/runsync", {"input": asked}).json()
    return requests.get(job["output"]["image_url"], timeout=10).content


def by_openai(ilse: Tenant, image: str) -> bytes:
    answer = ilse.post(
        "/v1/images/edits",
        {
            "model": "flux-kontext-dev", "prompt": PROMPT, "images": [{"image_url": image}], "seed": SEED,
            "num_inference_steps": STEPS, "guidance": GUIDANCE,
        },
    )  # fmt: skip
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


def by_replicate(ilse: Tenant, image: str) -> bytes:
    asked = {
        "prompt": PROMPT, "input_image": image, "seed": SEED, "num_inference_steps": STEPS, "guidance": GUIDANCE,
        "output_format": "png",
    }  # fmt: skip
    made: dict[str, Any] = ilse.post(
        "/v1/predictions", {"version": "flux-kontext-dev", "input": asked}, headers={"Prefer": "wait=60"}
    ).json()
    return requests.get(made["output"], timeout=10).content


def by_fal(ilse: Tenant, image: str) -> bytes:
    asked = {
        "prompt": PROMPT, "image_url": image, "seed": SEED, "num_inference_steps": STEPS, "guidance_scale": GUIDANCE,
        "output_format": "png",
    }  # fmt: skip
    answer = ilse.post("/run/fal-ai/flux-kontext/dev", asked).json()
    return requests.get(answer["images"][0]["url"], timeout=10).content


def by_bfl(ilse: Tenant, image: str) -> bytes:
    asked = {"prompt": PROMPT, "input_image": image, "seed": SEED, "steps": STEPS, "guidance": GUIDANCE}
    return _url(ilse, ilse.post("/v1/flux-kontext-dev", asked).json()["id"])


@pytest.mark.parametrize("ask", [by_runpod, by_openai, by_replicate, by_fal, by_bfl])
def test_every_dialect_gives_the_same_pixels(ilse: Tenant, photograph: str, ask: Any) -> None:
    assert pixels(ask(ilse, photograph)) == pixels(by_oxen(ilse, photograph, "png"))


def test_nim_gives_the_same_pixels_as_far_as_jpeg_can(ilse: Tenant, photograph: str) -> None:
    asked = {"prompt": PROMPT, "image": photograph, "seed": SEED, "steps": STEPS, "cfg_scale": GUIDANCE}
    (artifact,) = ilse.post("/v1/infer", asked).json()["artifacts"]
    assert pixels(base64.b64decode(artifact["base64"])) == pixels(by_oxen(ilse, photograph, "jpg"))


def test_a_generation_is_seen_through_every_dialect(ilse: Tenant, tiny: str) -> None:
    id_ = ilse.enqueue(tiny)
    ilse.finished(id_)
    assert ilse.get(f"/v2/quick/status/{id_}-u1").json()["status"] == "COMPLETED"
    assert ilse.get(f"/v1/predictions/{id_}").json()["status"] == "succeeded"
    assert ilse.get(f"/fal-ai/quick/requests/{id_}/status").json()["status"] == "COMPLETED"
    assert ilse.get(f"/v1/get_result?id={id_}").json()["status"] == "Ready"


def test_and_only_by_its_own_tenant(ilse: Tenant, ruth: Tenant, tiny: str) -> None:
    id_ = ilse.enqueue(tiny)
    for path in (f"/v2/quick/status/{id_}-u1", f"/v1/predictions/{id_}", f"/fal-ai/quick/requests/{id_}/status"):
        assert ruth.get(path).status_code == 404
    assert ruth.get(f"/v1/get_result?id={id_}").json()["status"] == "Task not found"


def test_the_front_page_says_how_each_client_is_aimed_here(ilse: Tenant) -> None:
    told = requests.get(ilse.url, timeout=10).json()["dialects"]
    assert set(told) == {"oxen", "runpod", "nim", "replicate", "bfl", "fal", "openai", "forge"}
    assert all(len(lines) == 3 for lines in told.values())
    assert f"export OPENAI_BASE_URL={ilse.url}/v1" in told["openai"]
