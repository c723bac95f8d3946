"""Promise: the client follows an edit to its end, whatever happens to its connections meanwhile."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest

import darkroom
from infra import embedded
from tests.conftest import TENANTS, eventually
from tests.faults.oracle.proxy import Proxy


@pytest.fixture
def proxy(stack: embedded.Stack) -> Iterator[Proxy]:
    with contextlib.closing(Proxy(int(stack.url.rpartition(":")[2]))) as one:
        yield one


def _faults(proxy: Proxy, stop: threading.Event) -> None:
    """Every cut, again and again."""
    while not stop.is_set():
        for fault in (proxy.cut, proxy.strand, lambda: proxy.swallow_replies(1), proxy.cut):
            if stop.wait(0.4):
                return
            fault()
        proxy.refuse(True)
        stop.wait(0.3)
        proxy.refuse(False)


@pytest.fixture
def trouble(proxy: Proxy) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=_faults, args=[proxy, stop])
    thread.start()
    yield
    stop.set()
    thread.join()
    proxy.refuse(False)


STEPS = 40


def _check(picture: darkroom.Picture, events: list[darkroom.Event]) -> None:
    assert picture.data
    cursors = [tuple(map(int, one.cursor.split("-"))) for one in events if one.generation_id]
    assert cursors == sorted(set(cursors)), "each event once, in order"
    assert [one.type for one in events].count("media_generation_completed") <= 1


def test_an_edit_is_followed_through_every_cut(proxy: Proxy, trouble: None, tiny: str) -> None:
    events: list[darkroom.Event] = []
    with darkroom.Client(f"http://127.0.0.1:{proxy.port}", TENANTS["alice"], timeout_s=2) as client:
        # Somebody answered before: what follows is trouble and no wrong address.
        eventually(lambda: _answers(client))
        picture = client.edit(tiny, "x", model="slow", num_inference_steps=STEPS, on_event=events.append)
    _check(picture, events)


def _answers(client: darkroom.Client) -> bool:
    with contextlib.suppress(darkroom.DarkroomError):
        return bool(client.models())
    return False


async def test_coroutines_follow_it_as_well(proxy: Proxy, trouble: None, tiny: str) -> None:
    events: list[darkroom.Event] = []
    async with darkroom.AsyncClient(f"http://127.0.0.1:{proxy.port}", TENANTS["alice"], timeout_s=2) as client:
        for _ in range(50):
            with contextlib.suppress(darkroom.DarkroomError):
                await client.models()
                break
            await asyncio.sleep(0.1)
        edits = [
            client.edit(tiny, "x", model="slow", num_inference_steps=STEPS, seed=n, on_event=events.append)
            for n in range(2)
        ]
        first, second = await asyncio.gather(*edits)
    assert {first.generation.seed, second.generation.seed} == {0, 1}
    for picture in (first, second):
        _check(picture, [one for one in events if one.generation_id == picture.generation.id])
