"""The client against a real stack, for coroutines and for everybody else."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image

import darkroom
from infra import embedded
from tests.conftest import PHOTOGRAPH, TENANTS


@pytest.fixture
def client(stack: embedded.Stack) -> Iterator[darkroom.Client]:
    with darkroom.Client(stack.url, TENANTS["erin"]) as one:
        yield one


@pytest.fixture
async def waiting(stack: embedded.Stack) -> AsyncIterator[darkroom.AsyncClient]:
    async with darkroom.AsyncClient(stack.url, TENANTS["erin"]) as one:
        yield one


def test_an_edit_is_one_call_and_keeps_the_inputs_shape(client: darkroom.Client, tmp_path: Path) -> None:
    seen: list[str] = []
    picture = client.edit(
        str(PHOTOGRAPH), "make it sepia", model="quick", seed=7, on_event=lambda one: seen.append(one.type)
    )
    with Image.open(PHOTOGRAPH) as photograph, Image.open(io.BytesIO(picture.data)) as result:
        assert result.width / result.height == pytest.approx(photograph.width / photograph.height, rel=0.1)
    assert seen[-1] == "media_generation_completed"
    assert picture.generation.seed == 7
    assert picture.save(tmp_path / "a.webp").read_bytes() == picture.data
    with pytest.warns(UserWarning, match=r"a\.png holds a webp picture; ask for output_format='png' or name it \.webp"):
        assert picture.save(tmp_path / "a.png").read_bytes() == picture.data
    assert "<img" in picture._repr_mimebundle_()["text/html"]


async def test_coroutines_have_the_same(waiting: darkroom.AsyncClient) -> None:
    picture = await waiting.edit(PHOTOGRAPH, "make it sepia", model="quick")
    assert picture.content_type == "image/webp"
    listed = [one.id async for one in waiting.generations(limit=1, status="all")]
    assert listed == [picture.generation.id]


def test_what_fails_and_what_is_cancelled_is_told_apart(client: darkroom.Client, tiny: str) -> None:
    with pytest.raises(darkroom.EditFailedError, match="input_unreachable"):
        client.edit("http://127.0.0.1:1/x.png", "x", model="quick")
    accepted = client.enqueue(tiny, "x", model="slower", num_inference_steps=40)
    assert client.cancel(accepted.ids[0])
    assert not client.cancel(accepted.ids[0])
    with pytest.raises(darkroom.CancelledError):
        client.picture(accepted.ids[0])
    with pytest.raises(darkroom.CancelledError):
        client.download(client.generation(accepted.ids[0]))
    with pytest.raises(darkroom.RefusedError) as refused:
        client.enqueue(tiny, "x", model="quick", seed=-1)
    assert refused.value.field == "seed"
    with pytest.raises(darkroom.RefusedError):
        client.generation("../models")


def test_a_deleted_result_is_said_to_be_deleted(client: darkroom.Client, tiny: str) -> None:
    picture = client.edit(tiny, "x", model="quick")
    gone = darkroom.Generation.of({**picture.generation.raw, "result_url": None})
    with pytest.raises(darkroom.DarkroomError, match="is deleted"):
        client.download(gone)


def test_lists_filter_by_group_and_words_and_go_on_over_pages(client: darkroom.Client, tiny: str) -> None:
    ids = [
        client.enqueue(tiny, f"Paint Harbour {n}", model="quick", group="walks", custom_id=f"row-{n}").ids[0]
        for n in range(3)
    ]
    client.enqueue(tiny, "something else", model="quick")
    for id_ in ids:
        client.wait(id_)
    assert [one.id for one in client.generations(status="all", group="walks")] == ids[::-1]
    assert [one.id for one in client.generations(status="all", search="harbour 1")] == [ids[1]]
    assert {one.raw["custom_id"] for one in client.generations(status="all", group="walks")} == {
        "row-0",
        "row-1",
        "row-2",
    }
    with pytest.raises(darkroom.RefusedError, match="colour is not a known query parameter"):
        list(client.generations(colour="red"))


def test_a_failed_generation_is_retried_and_a_good_one_replayed(client: darkroom.Client, tiny: str) -> None:
    failed = client.wait(client.enqueue("http://127.0.0.1:1/x.png", "x", model="quick").ids[0])
    assert client.retry(failed.id).status in ("queued", "processing", "failed")
    good = client.edit(tiny, "x", model="quick", seed=3)
    again = client.picture(client.replay(good.generation.id).ids[0])
    assert _pixels(again.data) == _pixels(good.data)
    assert client.erase(good.generation.id)["generations"] == 1


def test_a_wrong_address_is_told_at_once(tiny: str) -> None:
    with (
        darkroom.Client("http://127.0.0.1:9", "k" * 20) as nobody,
        pytest.raises(darkroom.UnreachableError, match=r"http://127\.0\.0\.1:9: connection refused"),
    ):
        nobody.enqueue(tiny, "x")


async def test_several_edits_at_a_time_have_their_own_results(waiting: darkroom.AsyncClient, tiny: str) -> None:
    async with asyncio.timeout(60):
        pictures = await asyncio.gather(*(waiting.edit(tiny, "x", model="quick", seed=n) for n in range(5)))
    assert [one.generation.seed for one in pictures] == list(range(5))


def test_links_of_the_service_lead_to_the_result_and_to_a_small_one(
    client: darkroom.Client, stack: embedded.Stack
) -> None:
    generation = client.edit(PHOTOGRAPH, "x", model="quick", width=512, height=384).generation
    whole = requests.get(generation.raw["download_url"], timeout=10)
    small = requests.get(generation.raw["thumbnail_url"], timeout=10)
    assert Image.open(io.BytesIO(whole.content)).size == (512, 384)
    assert Image.open(io.BytesIO(small.content)).size == (320, 240)
    assert "max-age" in small.headers["Cache-Control"]
    forged = generation.raw["thumbnail_url"].replace("proof=", "proof=9")
    assert requests.get(forged, timeout=10).status_code == 404


def test_a_link_signs_a_page_in_once_with_what_its_key_may(client: darkroom.Client, stack: embedded.Stack) -> None:
    link = client.token("page")
    with darkroom.Client(stack.url, link) as page:
        session = page.ask("POST", "/api/ai/tokens/sign-in")
        with pytest.raises(darkroom.RefusedError, match="used before"):
            page.ask("POST", "/api/ai/tokens/sign-in")
        with pytest.raises(darkroom.RefusedError):
            page.usage()
    assert session["tenant"] == "erin"
    with darkroom.Client(stack.url, session["token"]) as signed_in:
        assert signed_in.usage()["month"]
        picture = signed_in.edit(PHOTOGRAPH, "x", model="quick")
        assert signed_in.generation(picture.generation.id).is_succeeded
        with pytest.raises(darkroom.RefusedError, match="takes a key"):
            signed_in.token("page")
    with contextlib.suppress(darkroom.DarkroomError):
        client.erase(picture.generation.id)


def _pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").tobytes()


async def test_an_edit_that_nobody_waits_for_any_more_is_cancelled_unless_it_has_a_key(
    waiting: darkroom.AsyncClient, tiny: str
) -> None:
    for key, ends in ((None, "cancelled"), ("kept", "succeeded")):
        group = f"given up {ends}"
        edit = waiting.edit(tiny, "x", model="slower", num_inference_steps=12, group=group, idempotency_key=key)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(edit, 0.5)
        (one,) = [one async for one in waiting.generations(status="all", group=group)]
        assert (await waiting.wait(one.id)).status == ends


def test_ctrl_c_cancels_the_edit(client: darkroom.Client, tiny: str) -> None:
    def interrupt(event: darkroom.Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.edit(tiny, "x", model="slower", num_inference_steps=40, group="interrupted", on_event=interrupt)
    (one,) = client.generations(status="all", group="interrupted")
    assert client.wait(one.id).status == "cancelled"


def test_a_mask_goes_by_either_name(client: darkroom.Client, tiny: str) -> None:
    with Image.open(PHOTOGRAPH) as photograph:
        mask = Image.new("L", photograph.size, 255)
    for name in ("mask", "mask_image"):
        picture = client.edit(PHOTOGRAPH, "x", **{name: mask})
        assert picture.generation.raw["mask_image"]
    with pytest.raises(TypeError, match="mask and mask_image are the same"):
        client.enqueue(tiny, "x", mask=mask, mask_image=mask)
