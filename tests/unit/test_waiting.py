"""Whoever waits for events hears of everything, whatever happens to the log's reader."""

import asyncio
import contextlib

from api import waiting
from api.broadcast import Hub
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
