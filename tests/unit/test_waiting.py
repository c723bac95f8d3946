"""Whoever waits for events hears of everything, whatever happens to the log's reader."""

import asyncio
import contextlib
import dataclasses
import time
from types import SimpleNamespace

from api import waiting
from api.broadcast import Hub
from storage.contracts import events
from tests.unit.test_broadcast import Following, _event


async def test_happenings_go_on_after_subscribers_were_dropped() -> None:
    async with Following() as following:
        happenings = waiting.happenings(["1", "2"], "alice", hub=following.hub)
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
    happenings = waiting.happenings(["1"], "alice", hub=hub, look_again_s=0.001)
    async with contextlib.aclosing(happenings), asyncio.timeout(5):
        assert [await anext(happenings) for _ in range(3)] == [None] * 3


async def test_whoever_waits_for_an_ending_hears_of_it_after_subscribers_were_dropped() -> None:
    looks: asyncio.Queue[None] = asyncio.Queue()

    class Desk:
        async def run(self, call: object) -> object:
            looks.put_nowait(None)
            return SimpleNamespace(status=SimpleNamespace(terminal=ended))

    ended = False
    async with Following() as following, asyncio.timeout(5):
        deadline = time.monotonic() + 60
        found = asyncio.create_task(
            waiting.until_terminal("1", "alice", hub=following.hub, ledger=Desk(), deadline=deadline)  # type: ignore[arg-type]
        )
        await looks.get()
        following.hub.close()
        await looks.get()
        ended = True
        following.log.entries.append(dataclasses.replace(_event(1), type=events.EventType.COMPLETED))
        await found
