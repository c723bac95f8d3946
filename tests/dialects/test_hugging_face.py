"""Hugging Face's inference client with Replicate and fal as its providers, their addresses changed to ours."""

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.hf_api import InferenceProviderMapping
from huggingface_hub.inference._providers import PROVIDERS, _common

from tests.conftest import Tenant
from tests.dialects.conftest import small_picture

CASES = [
    ("replicate", "image-to-image", "black-forest-labs/flux-kontext-dev"),
    ("replicate", "text-to-image", "black-forest-labs/flux-2-dev"),
    ("fal-ai", "image-to-image", "fal-ai/flux-kontext/dev"),
    ("fal-ai", "text-to-image", "fal-ai/flux-2"),
]


@pytest.fixture
def client(request: pytest.FixtureRequest, faye: Tenant, monkeypatch: pytest.MonkeyPatch) -> InferenceClient:
    provider, task, name = request.param
    # Blocking calls of fal's are at an address of their own.
    base = f"{faye.url}/run" if (provider, task) == ("fal-ai", "text-to-image") else faye.url
    monkeypatch.setattr(PROVIDERS[provider][task], "base_url", base)
    mapping = InferenceProviderMapping(
        provider=provider, hf_model_id="hub/model", providerId=name, status="live", task=task
    )
    monkeypatch.setitem(_common.HARDCODED_MODEL_INFERENCE_MAPPING, provider, {"hub/model": mapping})
    return InferenceClient(provider=provider, api_key=faye.key)


@pytest.mark.parametrize("client", [case for case in CASES if case[1] == "image-to-image"], indirect=True)
def test_a_picture_is_edited(client: InferenceClient) -> None:
    made = client.image_to_image(small_picture(), prompt="make it blue", model="hub/model", num_inference_steps=1)
    assert made.size[0] > made.size[1]


@pytest.mark.parametrize("client", [case for case in CASES if case[1] == "text-to-image"], indirect=True)
def test_a_picture_is_made_from_text(client: InferenceClient) -> None:
    made = client.text_to_image(
        "a lighthouse", model="hub/model", width=256, height=192, num_inference_steps=1, guidance_scale=3.5, seed=7
    )
    assert made.size == (256, 192)
