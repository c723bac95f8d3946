"""One reader, many subscribers: in order, only what concerns them, and never buffered without bound."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from api.service.watch import BATCH, BUFFER, Hub
from storage.contracts import errors, events, generations
from storage.events import Coverage


def _event(number: int, tenant: str = "alice", *, cursor: str | None = None) -> events.Event:
    return events.Event(
        cursor=cursor or f"1-{number}",
        type=events.EventType.STARTED,
        tenant=tenant,
        generation_id=str(number),
        model="m",
        status=generations.Status.PROCESSING,
        fields={},
    )


class Log:
    """An event log in memory, which can fail."""

    def __init__(self) -> None:
        self.entries: list[events.Event] = []
        self.faults: list[Exception] = []
        self.has_gap = False

    async def latest(self) -> str:
        return self.entries[-1].cursor if self.entries else "0-0"

    async def gap(self, after: str) -> bool:
        return self.has_gap

    async def coverage(self, tenant: str, cursor: str) -> Coverage:
        return Coverage(complete=not self.has_gap, latest=await self.latest())

    async def follow(self, after: str, block_ms: int, count: int) -> Sequence[events.Event]:
        await asyncio.sleep(0.001)
        if self.faults:
            raise self.faults.pop()
        return [event for event in self.entries if events.order(event.cursor) > events.order(after)][:count]


class Following:
    """A hub that follows a log for the length of a block."""

    def __init__(self, log: Log | None = None) -> None:
        self.log = log or Log()
        self.hub = Hub(self.log)  # type: ignore[arg-type]

    async def __aenter__(self) -> "Following":
        self._task = asyncio.create_task(self.hub.run())
        await asyncio.sleep(0.02)
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._task.cancel()


async def test_subscribers_get_their_tenants_events_in_order() -> None:
    async with Following() as following:
        with following.hub.subscribe("alice") as hers, following.hub.subscribe("bob") as his:
            following.log.entries += [_event(1), _event(2, "bob"), _event(3)]
            assert [(await hers.next(5)).cursor for _ in range(2)] == ["1-1", "1-3"]  # type: ignore[union-attr]
            assert (await his.next(5)).cursor == "1-2"  # type: ignore[union-attr]


async def test_a_burst_does_not_drop_a_subscriber_that_keeps_up() -> None:
    async with Following() as following:
        with following.hub.subscribe("alice") as subscription:
            following.log.entries += [_event(number) for number in range(1, 20 * BUFFER)]
            for number in range(1, 20 * BUFFER):
                event = await subscription.next(5)
                assert event is not None
                assert event.generation_id == str(number)


async def test_a_subscriber_that_does_not_read_is_dropped_and_the_others_are_not() -> None:
    async with Following() as following:
        with following.hub.subscribe("alice") as idle, following.hub.subscribe("alice") as busy:
            for number in range(1, BUFFER + BATCH):
                following.log.entries.append(_event(number))
                assert await busy.next(5) is not None
            assert idle.closed
            assert not busy.closed
            received = 0
            while await idle.next(1) is not None:
                received += 1
            assert received == BUFFER


@pytest.mark.parametrize("fault", [errors.StoreUnavailableError("away"), ValueError("an event of a later version")])
async def test_a_fault_does_not_end_the_following(fault: Exception) -> None:
    async with Following() as following:
        following.log.faults.append(fault)
        with following.hub.subscribe("alice") as subscription:
            following.log.entries.append(_event(1))
            assert await subscription.next(5) is not None


async def test_a_cancellation_that_the_store_swallows_ends_it_all_the_same() -> None:
    class Swallowing(Log):
        async def follow(self, after: str, block_ms: int, count: int) -> Sequence[events.Event]:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not self.has_gap:
                    self.has_gap = True
                    raise errors.StoreUnavailableError("so it seems") from None
                raise
            return []

    following = asyncio.create_task(Hub(Swallowing()).run())  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.wait_for(following, 5)


async def test_after_a_gap_everyone_is_asked_to_resume() -> None:
    async with Following() as following:
        with following.hub.subscribe("alice") as subscription:
            following.log.has_gap = True
            following.log.faults.append(errors.StoreUnavailableError("away"))
            assert await subscription.next(5) is None


async def test_one_that_lags_behind_what_is_trimmed_asks_everyone_to_resume() -> None:
    """Without an idle moment in which it would look: every batch is full."""

    class Trimmed(Log):
        """Always has a full batch, and what came before it is gone."""

        followed = 0

        async def follow(self, after: str, block_ms: int, count: int) -> Sequence[events.Event]:
            await asyncio.sleep(0.001)
            self.followed += 1
            if self.followed == 2:
                self.has_gap = True
            first = int(after.partition("-")[2]) + 1
            return [_event(number) for number in range(first, first + count)]

        async def latest(self) -> str:
            self.has_gap = False
            return await super().latest()

    log = Trimmed()
    async with Following(log) as following:
        with following.hub.subscribe("alice") as subscription:
            log.followed = 0
            while await subscription.next(5) is not None:
                pass
            assert subscription.closed
