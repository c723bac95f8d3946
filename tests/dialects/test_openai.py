"""OpenAI's Images API, by its Python client."""

import base64
import io
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest
import requests
from PIL import Image

from tests.conftest import PHOTOGRAPH, Tenant, encoded, eventually
from tests.dialects.conftest import PROMPT, pixels, small_picture


@pytest.fixture
def client(olga: Tenant) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{olga.url}/v1", api_key=olga.key) as one:
        yield one


def test_an_edit_of_one_picture_comes_by_url_and_inline(client: openai.OpenAI) -> None:
    with PHOTOGRAPH.open("rb") as image:
        answer = client.images.edit(model="quick", image=image, prompt=PROMPT)
    (picture,) = answer.data or ()
    assert picture.b64_json
    assert picture.url
    assert base64.b64decode(picture.b64_json) == requests.get(picture.url, timeout=10).content
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.output_format == "png"


def test_what_another_field_overrides_is_named(client: openai.OpenAI) -> None:
    mask = encoded(Image.new("RGBA", (64, 64), (0, 0, 0, 0)), "PNG")
    picture = encoded(Image.new("RGB", (64, 64), "red"), "PNG")
    answer = client.images.with_raw_response.edit(
        model="quick", image=("a.png", picture), mask=("m.png", mask), prompt=PROMPT, size="96x64", quality="high",
        user="somebody", extra_body={"num_inference_steps": 1, "partial_images": 1},
    )  # fmt: skip
    assert set(answer.headers["Darkroom-Ignored"].split(", ")) == {"partial_images", "quality", "size", "user"}


def test_several_pictures_are_read_and_several_made(client: openai.OpenAI) -> None:
    files = [("a.png", encoded(Image.new("RGB", (64, 64), colour), "PNG")) for colour in ("red", "blue")]
    answer = client.images.edit(
        model="quick", image=files, prompt=PROMPT, n=2, size="96x64", response_format="b64_json", output_format="webp",
        output_compression=50, extra_body={"seed": 7},
    )  # fmt: skip
    assert answer.data
    assert [pixels(base64.b64decode(one.b64_json or ""))[0] for one in answer.data] == [(96, 64)] * 2
    assert [one.url for one in answer.data] == [None, None]
    assert answer.size == "96x64"


def test_what_a_mask_leaves_transparent_is_painted_anew(client: openai.OpenAI) -> None:
    with Image.open(PHOTOGRAPH) as photograph:
        picture = photograph.convert("RGB").resize((128, 128))
    mask = Image.new("RGBA", picture.size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (64, 0, 128, 128))
    answer = client.images.edit(
        model="flux-kontext-dev", image=encoded(picture, "PNG"), mask=encoded(mask, "PNG"), prompt="tint it green",
        quality="low", extra_body={"seed": 1},
    )  # fmt: skip
    assert answer.data
    with Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json or ""))) as made:
        difference = np.abs(np.asarray(made.convert("RGB"), float) - np.asarray(picture, float)).mean(axis=(0, 2))
    # The autoencoder alone costs some; beside the edge of the mask sixteen pixels count as neither.
    assert difference[:48].mean() < 12 < 30 < difference[80:].mean(), (difference[:48].mean(), difference[80:].mean())


def test_a_mask_without_an_alpha_channel_is_refused(client: openai.OpenAI) -> None:
    mask = encoded(Image.new("RGB", (64, 64)), "PNG")
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.edit(model="flux-kontext-dev", image=mask, mask=mask, prompt=PROMPT)
    assert refused.value.param == "mask"


def test_a_picture_is_generated_from_text(client: openai.OpenAI) -> None:
    answer = client.images.generate(model="flux-2-dev", prompt="a bird", size="256x192", quality="low")
    assert answer.data
    assert pixels(base64.b64decode(answer.data[0].b64_json or ""))[0] == (256, 192)


def test_without_a_model_one_that_can_is_chosen(client: openai.OpenAI) -> None:
    assert client.images.generate(prompt="a bird", size="64x64").data


def test_partial_pictures_come_before_the_finished_one(client: openai.OpenAI) -> None:
    with PHOTOGRAPH.open("rb") as image:
        stream = client.images.edit(
            model="flux-kontext-dev",
            image=image,
            prompt=PROMPT,
            stream=True,
            partial_images=2,
            # Long enough for each to be seen, however busy the machine is.
            extra_body={"seed": 5, "num_inference_steps": 50},
        )
        events = list(stream)
    assert [event.type for event in events] == [*["image_edit.partial_image"] * 2, "image_edit.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]  # type: ignore[union-attr]
    for event in events:
        assert pixels(base64.b64decode(event.b64_json))[0][0] >= 8
    assert events[-1].usage.output_tokens > 0  # type: ignore[union-attr]


def test_a_generation_is_streamed_too(client: openai.OpenAI) -> None:
    events = list(client.images.generate(model="flux-2-dev", prompt="a bird", size="64x64", stream=True))
    assert [event.type for event in events] == ["image_generation.completed"]


def test_a_failing_stream_ends_with_an_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError) as failed:
        list(client.images.generate(model="flux-2-dev", prompt="child porn", stream=True))
    assert failed.value.code == "moderation_blocked"


def test_models_are_listed_and_read(client: openai.OpenAI) -> None:
    assert "flux-2-dev" in [model.id for model in client.models.list()]
    assert client.models.retrieve("black-forest-labs/FLUX.1-Kontext-dev").id == "flux-kontext-dev"


def test_a_wrong_key_and_an_unknown_model(client: openai.OpenAI, olga: Tenant) -> None:
    stranger = openai.OpenAI(base_url=f"{olga.url}/v1", api_key="nobody", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as wrong:
        stranger.images.edit(image=encoded(Image.new("RGB", (8, 8)), "PNG"), prompt=PROMPT)
    assert (wrong.value.code, wrong.value.type) == ("invalid_api_key", "invalid_request_error")
    stranger.close()
    with pytest.raises(openai.NotFoundError) as unknown:
        client.images.edit(model="gpt-4o", image=encoded(Image.new("RGB", (8, 8)), "PNG"), prompt=PROMPT)
    assert unknown.value.code == "model_not_found"


def test_a_filtered_edit_is_blocked_and_not_run_again(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as blocked:
        client.images.edit(model="quick", image=encoded(Image.new("RGB", (8, 8)), "PNG"), prompt="child porn")
    assert blocked.value.code == "moderation_blocked"
    assert blocked.value.response.headers["x-should-retry"] == "false"
    assert blocked.value.request_id


def test_a_prompt_written_anew_is_told_as_revised(olga: Tenant) -> None:
    body = {"prompt": "a bird", "model": "flux-2-dev", "num_inference_steps": 1, "caption_upsample_temperature": 0.2}
    # Untrained, it writes nothing at all with one seed in forty; not with this one.
    (datum,) = olga.post("/v1/images/generations", {**body, "seed": 3}).json()["data"]
    assert datum["revised_prompt"] not in ("", "a bird")


def test_what_failed_after_it_was_accepted_is_not_submitted_again(client: openai.OpenAI, olga: Tenant) -> None:
    def count() -> int:
        return int(olga.get("/api/ai/queue?status=failed&model=absent").json()["count"])

    before = count()
    with pytest.raises(openai.APIStatusError) as failed:
        client.images.generate(model="absent", prompt="a bird", timeout=60)
    assert failed.value.status_code >= 500
    assert count() == before + 1


def test_a_client_that_hangs_up_cancels_its_edit(olga: Tenant) -> None:
    before = olga.get("/api/ai/queue?status=cancelled&model=slow").json()["count"]
    impatient = openai.OpenAI(base_url=f"{olga.url}/v1", api_key=olga.key, max_retries=0, timeout=1)
    with pytest.raises(openai.APITimeoutError):
        impatient.images.edit(model="slow", image=encoded(Image.new("RGB", (8, 8)), "PNG"), prompt=PROMPT)
    impatient.close()
    eventually(lambda: olga.get("/api/ai/queue?status=cancelled&model=slow").json()["count"] == before + 1)


def test_leaving_a_stream_cancels_every_picture_of_it(olga: Tenant, tiny: str) -> None:
    def cancelled() -> int:
        return int(olga.get("/api/ai/queue?status=cancelled&model=slow").json()["count"])

    before = cancelled()
    body = {"model": "slow", "prompt": PROMPT, "images": [{"image_url": tiny}], "n": 3, "stream": True}
    with httpx.stream("POST", f"{olga.url}/v1/images/edits", json=body, headers=olga.headers, timeout=30) as answer:
        assert answer.status_code == 200
        eventually(lambda: olga.get("/api/ai/queue?model=slow").json()["count"] == 3)
    eventually(lambda: cancelled() == before + 3)


def test_a_file_under_another_name_is_refused_by_it(olga: Tenant) -> None:
    refused = requests.post(
        f"{olga.url}/v1/images/edits", headers=olga.headers, data={"prompt": PROMPT}, timeout=10,
        files={"image": ("a.png", small_picture()), "control_image": ("b.png", small_picture())},
    )  # fmt: skip
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "control_image")


@pytest.mark.parametrize("size", ["00x00", "0x64", "064x64", "١٠٢٤x1024", "1x1"])
def test_a_size_that_is_none_is_refused(olga: Tenant, tiny: str, size: str) -> None:
    body = {"model": "quick", "prompt": PROMPT, "images": [{"image_url": tiny}], "size": size}
    refused = olga.post("/v1/images/edits", body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "size")


def test_pictures_may_be_named_in_json(olga: Tenant, tiny: str) -> None:
    body = {"model": "quick", "prompt": PROMPT, "images": [{"image_url": tiny}], "response_format": "url"}
    answer = olga.post("/v1/images/edits", body)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()["data"][0]) == {"url", "seed"}
    refused = olga.post("/v1/images/edits", {**body, "images": [{"file_id": "file-1"}]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "images")


def test_azures_client_names_the_model_by_its_deployment(olga: Tenant) -> None:
    with openai.AzureOpenAI(azure_endpoint=olga.url, api_key=olga.key, api_version="2025-04-01-preview") as client:
        made = client.images.edit(model="quick", image=small_picture(), prompt=PROMPT, size="96x64")
    assert made.data
    assert pixels(base64.b64decode(made.data[0].b64_json or ""))[0] == (96, 64)


def test_a_model_of_openais_is_the_operators(client: openai.OpenAI) -> None:
    """For programs that cannot be told another name."""
    made = client.images.with_raw_response.edit(
        model="gpt-image-1", image=small_picture(), prompt=PROMPT, quality="low"
    )
    assert made.headers["Darkroom-Model"] == "flux-kontext-dev"
    from_text = client.images.with_raw_response.generate(
        model="dall-e-3", prompt="a bird", size="256x256", quality="low"
    )
    assert from_text.headers["Darkroom-Model"].startswith("flux-2")
