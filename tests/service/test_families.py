"""Every model family through the whole service: what is asked is what comes back, and the answer says how it was made."""

import io
import json
from typing import Any

import pytest
import requests
from PIL import Image

from infra import embedded
from storage.contracts.generations import Phase
from storage.objects import Objects
from tests.conftest import Tenant, data_uri, encoded, eventually
from tests.sse import reading
from workers import pictures

pytestmark = pytest.mark.usefixtures("nobody_waits")

FLUX2 = ("flux-2-dev", "flux-2-klein-4b", "flux-2-klein-9b")


def _enqueued(tenant: Tenant, **body: Any) -> str:
    plain = {"prompt": "a red fox", "output_format": "png", "num_inference_steps": 4, "seed": 5}
    answer = tenant.post("/api/ai/queue", {**plain, **body})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["generations"][0]["generation_id"])


def _made(tenant: Tenant, **body: Any) -> tuple[dict[str, Any], Image.Image]:
    found = tenant.finished(_enqueued(tenant, **body))
    assert found["status"] == "succeeded", found
    data = requests.get(found["result_url"], timeout=10).content
    return found, Image.open(io.BytesIO(data))


def _refused(tenant: Tenant, **body: Any) -> str:
    answer = tenant.post("/api/ai/queue", {"prompt": "x", **body})
    assert answer.status_code == 400, answer.text
    return str(answer.json()["error"]["message"])


@pytest.fixture(scope="module")
def wide() -> str:
    return data_uri(encoded(Image.linear_gradient("L").convert("RGB").resize((320, 180)), "PNG"))


@pytest.mark.parametrize("model", FLUX2)
def test_pictures_from_text_alone(alice: Tenant, model: str) -> None:
    found, picture = _made(alice, model=model, aspect_ratio="1:1")
    assert picture.size == (found["width"], found["height"]) == (256, 256)
    assert found["fit"] == ""


def test_a_prompt_is_written_anew_when_asked_to(alice: Tenant) -> None:
    plain = {"model": "flux-2-dev", "aspect_ratio": "1:1", "num_inference_steps": 2}
    untouched, as_it_is = _made(alice, **plain)
    first, written = _made(alice, **plain, caption_upsample_temperature=0.2)
    again, same = _made(alice, **plain, caption_upsample_temperature=0.2)
    assert untouched["upsampled_prompt"] is None
    assert first["upsampled_prompt"] not in (None, "", "a red fox")
    assert (first["prompt"], first["receipt"]["upsample_temperature"]) == ("a red fox", 0.2)
    assert first["upsampled_prompt"] == again["upsampled_prompt"]
    assert as_it_is.tobytes() != written.tobytes() == same.tobytes()
    for model in ("flux-2-klein-4b", "flux-2-klein-9b"):
        told = _refused(alice, model=model, caption_upsample_temperature=0.2)
        assert told.startswith("caption_upsample_temperature is not a known parameter")


@pytest.mark.parametrize("model", FLUX2)
def test_several_references(alice: Tenant, model: str, photograph: str, wide: str) -> None:
    one, _ = _made(alice, model=model, input_image=wide, aspect_ratio="match_input_image")
    assert (one["width"], one["height"]) == (336, 192), "the first one's shape"
    two, picture = _made(alice, model=model, input_image=[wide, photograph], aspect_ratio="match_input_image")
    assert two["fit"] == "input 1 320x180 scaled to 320x176; input 2 512x512 scaled to 256x256"
    assert picture.size == (336, 192)


def test_kontext_reads_several_references_side_by_side(alice: Tenant, photograph: str, wide: str) -> None:
    found, _ = _made(alice, model="flux-kontext-dev", input_image=[photograph, wide], aspect_ratio="match_input_image")
    assert found["fit"] == "2 pictures side by side as one; input 1422x512 scaled to 192x80", "as high as the first"
    assert (found["width"], found["height"]) == (128, 128), "the first one's shape"


def test_more_references_than_a_model_takes_are_refused(alice: Tenant, tiny: str) -> None:
    assert (
        _refused(alice, model="flux-2-dev", input_image=[tiny] * 9) == "input_image: flux-2-dev takes at most 8; got 9"
    )


def test_an_exact_size_is_met_to_the_pixel(alice: Tenant, photograph: str) -> None:
    found, picture = _made(alice, model="flux-kontext-dev", input_image=photograph, width=120, height=101)
    assert picture.size == (found["width"], found["height"]) == (120, 101)
    assert found["fit"].endswith("rendered at 128x112, cropped to 120x101")


def test_the_inputs_own_size_can_be_given_back(alice: Tenant, wide: str) -> None:
    found, picture = _made(alice, model="flux-kontext-dev", input_image=wide, exact_size=True)
    assert picture.size == (320, 180)
    assert found["fit"] == "input 320x180 scaled to 176x96; rendered at 176x96, scaled to 320x180"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"width": 256}, "width and height belong together; height is missing"),
        ({"width": 256, "height": 300, "aspect_ratio": "1:1"}, "aspect_ratio and width and height exclude each other"),
        ({"exact_size": True, "aspect_ratio": "1:1"}, "aspect_ratio and exact_size exclude each other"),
        ({"exact_size": True, "width": 256, "height": 256}, "exact_size: width and height exclude it"),
        ({"width": 2048, "height": 1024}, "width x height may be at most 1800000 pixels; got 2048x1024"),
        ({"width": 2049, "height": 64}, "width must be an integer between 64 and 2048; got 2049"),
        ({"negative_prompt": "red"}, "negative_prompt needs true_guidance above 1"),
        ({"true_guidance": 3}, "true_guidance above 1 needs a negative_prompt"),
        ({"strength": 0.5}, "strength is for edits with a mask_image"),
        ({"parent_generation_id": "none"}, "parent_generation_id: there is no generation 'none'"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(
    alice: Tenant, tiny: str, fields: dict[str, Any], sentence: str
) -> None:
    body = {"model": "flux-kontext-dev", "prompt": "x", "input_image": tiny, **fields}
    error = alice.post("/api/ai/queue", body).json()["error"]
    assert error["message"].startswith(sentence)


def test_a_parameter_a_model_does_not_have_is_refused_not_ignored(alice: Tenant) -> None:
    assert _refused(alice, model="flux-2-klein-4b", guidance=3).startswith("guidance is not a known parameter")
    assert _refused(alice, model="flux-2-dev", mask_image=_mask(64, 64)).startswith("mask_image: flux-2-dev takes none")


def _mask(width: int, height: int) -> str:
    return data_uri(encoded(Image.new("L", (width, height), 255), "PNG"))


def test_a_mask_says_where_to_paint(alice: Tenant, photograph: str) -> None:
    half = Image.new("L", (512, 512), 0)
    half.paste(255, (0, 0, 256, 512))
    body = {"model": "flux-kontext-dev", "input_image": photograph, "mask_image": data_uri(encoded(half, "PNG"))}
    (found, masked), (_, other) = _made(alice, **body, seed=1), _made(alice, **body, seed=2)
    assert found["mask_image"].startswith("http")

    def difference(box: tuple[int, int, int, int]) -> int:
        pairs = zip(masked.crop(box).tobytes(), other.crop(box).tobytes(), strict=True)
        return max(abs(a - b) for a, b in pairs)

    # The decoder looks a little beyond the border of the mask.
    assert difference((200, 0, 256, 256)) <= 8 < difference((0, 0, 100, 256))


def test_a_mask_of_another_shape_fails_with_a_sentence(alice: Tenant, photograph: str) -> None:
    id_ = _enqueued(alice, model="flux-kontext-dev", input_image=photograph, mask_image=_mask(64, 32))
    found = alice.finished(id_)
    assert found["error_message"] == "mask_image must have the shape of input_image, 512x512; got 64x32"


def test_a_negative_prompt_reaches_the_model(alice: Tenant, photograph: str) -> None:
    body = {"model": "flux-kontext-dev", "input_image": photograph}
    _, plain = _made(alice, **body)
    _, guided = _made(alice, **body, negative_prompt="red", true_guidance=4)
    assert plain.tobytes() != guided.tobytes()


def test_the_answer_and_the_file_carry_the_receipt(alice: Tenant, photograph: str) -> None:
    for output_format in ("png", "jpg", "webp"):
        found, picture = _made(
            alice, model="flux-kontext-dev", input_image=photograph, output_format=output_format, prompt="a secret wish"
        )
        receipt = found["receipt"]
        assert receipt["pipeline"] == "FluxKontextPipeline"
        assert (receipt["seed"], receipt["steps"], receipt["dtype"]) == (5, 4, "float32")
        assert (receipt["gpu_type"], receipt["placement"]) == ("cpu", "bf16, resident")
        assert set(receipt["libraries"]) == {"torch", "diffusers", "transformers"}
        written = pictures.receipt_in(picture)
        assert json.loads(written or "") == receipt
        assert "secret" not in (written or "")


def test_a_replay_gives_the_same_pixels(alice: Tenant, photograph: str) -> None:
    body = {"model": "flux-kontext-dev", "input_image": photograph}
    found, picture = _made(alice, **body, seed=None)
    again = alice.post(f"/api/ai/queue/{found['generation_id']}/replay")
    assert again.status_code == 200, again.text
    replayed = alice.finished(again.json()["generations"][0]["generation_id"])
    assert replayed["seed"] == found["seed"]
    data = requests.get(replayed["result_url"], timeout=10).content
    assert Image.open(io.BytesIO(data)).tobytes() == picture.tobytes()
    alice.delete(f"/api/ai/queue/{found['generation_id']}")


@pytest.mark.parametrize("route", ["replay", "retry"])
def test_what_is_run_again_is_run_as_it_was(alice: Tenant, tiny: str, route: str) -> None:
    id_ = alice.enqueue(tiny)
    alice.finished(id_)
    answer = alice.post(f"/api/ai/queue/{id_}/{route}", {"seed": 99, "prompt": "another"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        400,
        "This route takes no fields; got prompt, seed",
    )
    raw = requests.post(f"{alice.url}/api/ai/queue/{id_}/{route}", b"seed=99", headers=alice.headers, timeout=30)
    assert (raw.status_code, raw.json()["error"]["message"]) == (400, "This route takes no fields; got something else")
    assert alice.post(f"/api/ai/queue/{id_}/{route}", {}).status_code == (200 if route == "replay" else 400)


def test_what_was_refused_cannot_be_replayed(alice: Tenant, tiny: str) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny, "guidance": 99}
    id_ = alice.post("/api/ai/queue?validate=late", body).json()["generations"][0]["generation_id"]
    answer = alice.post(f"/api/ai/queue/{id_}/replay")
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "What was refused cannot be replayed")


def test_a_replay_stays_in_its_namespace_and_can_be_repeated_safely(alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny, target_namespace="team")
    alice.finished(id_)
    posts = [alice.post(f"/api/ai/queue/{id_}/replay", headers={"Idempotency-Key": f"again-{id_}"}) for _ in range(2)]
    first, second = (post.json()["generations"] for post in posts)
    assert first == second
    assert posts[1].headers["Idempotent-Replayed"] == "true"
    alice.finished(first[0]["generation_id"])
    listed = alice.get("/api/ai/queue?namespace=team&status=succeeded").json()["generations"]
    assert first[0]["generation_id"] in {one["generation_id"] for one in listed}


def test_another_tenants_generation_can_be_neither_replayed_nor_edited_on(
    alice: Tenant, bob: Tenant, tiny: str
) -> None:
    id_ = alice.enqueue(tiny)
    alice.finished(id_)
    assert bob.post(f"/api/ai/queue/{id_}/replay").status_code == 404
    answer = bob.post("/api/ai/queue", {"model": "quick", "prompt": "x", "parent_generation_id": id_})
    assert answer.status_code == 404


def test_a_result_is_edited_on_without_being_sent_again_and_the_chain_can_be_read(
    alice: Tenant, photograph: str
) -> None:
    first, picture = _made(alice, model="flux-kontext-dev", input_image=photograph)
    second, _ = _made(alice, model="flux-kontext-dev", parent_generation_id=first["generation_id"])
    assert second["parent_generation_id"] == first["generation_id"]
    assert second["fit"].startswith(f"input {picture.width}x{picture.height}") or second["fit"] == "input as it is"
    given = Image.open(io.BytesIO(requests.get(second["input_image"], timeout=10).content))
    assert given.tobytes() == picture.tobytes()


def test_what_has_no_result_cannot_be_edited_on(alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny, model="slow")
    alice.delete(f"/api/ai/queue/{id_}")
    message = _refused(alice, model="quick", parent_generation_id=id_)
    assert message == "parent_generation_id: that generation is cancelled; only a succeeded one has a result"


def test_previews_come_with_progress_when_asked_for(alice: Tenant, photograph: str) -> None:
    with reading(alice) as stream:
        id_ = _enqueued(alice, model="flux-kontext-dev", input_image=photograph, previews=True, num_inference_steps=20)
        plain = _enqueued(alice, model="flux-kontext-dev", input_image=photograph, num_inference_steps=20)
        stream.wait_for("media_generation_completed", id_)
        stream.wait_for("media_generation_completed", plain)
    shown = [event["data"]["preview"] for event in stream.of(id_) if "preview" in event["data"]]
    assert shown
    assert not any("preview" in event["data"] for event in stream.of(plain))
    assert shown[-1].startswith("data:image/jpeg;base64,")
    preview = Image.open(io.BytesIO(_bytes(shown[-1])))
    assert preview.size == (11, 6), "a pixel for sixteen"


def _bytes(uri: str) -> bytes:
    import base64

    return base64.b64decode(uri.partition(",")[2])


def test_a_model_that_is_waited_for_is_seen_being_loaded(alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny, model="bulky")

    def loading() -> int | None:
        found = alice.get(f"/api/ai/queue/{id_}").json()
        return found["progress"]["model_loaded_percent"] if found["phase"] == Phase.LOADING else None

    assert 0 < eventually(loading) <= 100
    found = alice.finished(id_)
    assert found["status"] == "succeeded"
    assert found["timings"]["load_ms"] >= 2000
    assert alice.finished(alice.enqueue(tiny, model="bulky"))["timings"]["load_ms"] == 0, "warm now"


def test_weights_that_cannot_be_loaded_fail_with_the_reason_and_the_worker_lives(alice: Tenant, tiny: str) -> None:
    found = alice.finished(_enqueued(alice, model="absent"))
    assert (found["status"], found["error_code"]) == ("failed", "model_unavailable")
    assert "are of a Flux2KleinPipeline, not of a Flux2Pipeline" in found["error_message"]
    assert alice.finished(alice.enqueue(tiny))["status"] == "succeeded"


def test_what_is_no_longer_kept_can_be_neither_replayed_nor_edited_on(
    stack: embedded.Stack, alice: Tenant, tiny: str
) -> None:
    id_ = alice.enqueue(tiny)
    alice.finished(id_)
    for kind in ("inputs", "results"):
        assert Objects(stack.store).delete_prefix(f"{kind}/alice/{id_}/") == 1
    replayed = alice.post(f"/api/ai/queue/{id_}/replay")
    assert (replayed.status_code, replayed.json()["error"]["message"]) == (404, "The picture is no longer kept")
    edited = alice.post("/api/ai/queue", {"model": "quick", "prompt": "x", "parent_generation_id": id_})
    assert edited.status_code == 404


def test_a_list_knows_a_model_by_any_of_its_names(alice: Tenant) -> None:
    _made(alice, model="flux-2-dev")
    for name in ("flux-2-dev", "black-forest-labs/FLUX.2-dev"):
        listed = alice.get("/api/ai/queue", params={"model": name, "status": "succeeded"}).json()["generations"]
        assert {one["model_name"] for one in listed} == {"flux-2-dev"}


def test_a_size_beyond_what_is_rendered_is_scaled_to(alice: Tenant, tiny: str) -> None:
    body = {
        "model": "flux-kontext-dev",
        "prompt": "x",
        "input_image": tiny,
        "width": 1472,
        "height": 1140,
        "num_inference_steps": 4,
    }
    found = alice.finished(alice.post("/api/ai/queue", body).json()["generations"][0]["generation_id"])
    assert (found["width"], found["height"]) == (1472, 1140)
    assert found["fit"].endswith("rendered at 144x112, scaled to 1472x1140")
