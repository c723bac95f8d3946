"""A subscriber hears of everything, whatever happens to the log's reader."""

import asyncio
import contextlib
import dataclasses
import time
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from api.service.wait import Waiter
from api.service.watch import Hub
from storage.contracts import errors, events, generations
from tests.unit.test_watch import Following, _event


def _waiter(hub: Hub, reader: Any = None) -> Waiter:
    return Waiter(hub=hub, archive=None, reader=reader, limit_s=60)  # type: ignore[arg-type]


async def test_happenings_go_on_after_subscribers_were_dropped() -> None:
    async with Following() as following:
        happenings = _waiter(following.hub).happenings(["1", "2"], "alice", stopping=anyio.Event())
        async with contextlib.aclosing(happenings):
            assert await anext(happenings) is None, "records are looked at first"
            following.log.entries.append(first := _event(1))
            assert await anext(happenings) is first
            following.hub.close()
            assert await anext(happenings) is None, "something may have been missed"
            following.log.entries += [_event(3), second := _event(2, cursor="1-4")]
            assert await anext(happenings) is second


async def test_records_are_looked_at_again_when_nothing_is_heard() -> None:
    hub = Hub(None)  # type: ignore[arg-type]
    happenings = _waiter(hub).happenings(["1"], "alice", stopping=anyio.Event(), look_again_s=0.001)
    async with contextlib.aclosing(happenings), asyncio.timeout(5):
        assert [await anext(happenings) for _ in range(3)] == [None] * 3


async def test_what_waits_for_an_ending_hears_of_it_after_subscribers_were_dropped() -> None:
    looks: asyncio.Queue[None] = asyncio.Queue()

    class Desk:
        async def one(self, id_: str, tenant: str) -> object:
            looks.put_nowait(None)
            return SimpleNamespace(is_over=ended)

    ended = False
    async with Following() as following, asyncio.timeout(5):
        deadline = time.monotonic() + 60
        found = asyncio.create_task(_waiter(following.hub, Desk()).until_over("1", "alice", deadline=deadline))
        await looks.get()
        following.hub.close()
        await looks.get()
        ended = True
        following.log.entries.append(dataclasses.replace(_event(1), type=events.EventType.COMPLETED))
        await found


async def test_happenings_end_when_the_process_stops() -> None:
    stopping = anyio.Event()
    async with Following() as following, asyncio.timeout(5):
        happenings = _waiter(following.hub).happenings(["1"], "alice", stopping=stopping)
        assert await anext(happenings) is None
        stopping.set()
        assert [event async for event in happenings] == []


@pytest.mark.parametrize("ending", ["succeeded", "cancelled"])
async def test_what_ends_at_the_limit_is_returned_unless_it_was_cancelled(ending: str) -> None:
    status = generations.Status.PROCESSING

    class Desk:
        async def one(self, id_: str, tenant: str) -> object:
            return SimpleNamespace(is_over=status.terminal, generation=SimpleNamespace(status=status))

        async def cancel(self, id_: str, tenant: str) -> None:
            nonlocal status
            status = generations.Status(ending)

    desk: Any = Desk()
    async with Following() as following, asyncio.timeout(5):
        waiting = Waiter(hub=following.hub, archive=desk, reader=desk, limit_s=0.01).until_all_over(["1"], "alice")
        if ending == "succeeded":
            (view,) = await waiting
            assert view.generation.status == ending
        else:
            with pytest.raises(errors.TimedOutError, match="seconds and was cancelled"):
                await waiting
