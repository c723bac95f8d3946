"""Places for pictures are known to the ledger before anything is stored there, mostly ahead of the request."""

import asyncio
from typing import Any

import pytest

from api.service import reservations
from api.service.reservations import FRESH_S, MOST_AHEAD, REMEMBERED, Reservations, place_of
from storage.contracts import errors
from storage.ledger.call import Call


class Ledger:
    """Knows what was reserved; answers when it is let."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.let = asyncio.Event()
        self.let.set()
        self.is_away = False

    async def run(self, call: Call[Any]) -> Any:
        await self.let.wait()
        if self.is_away:
            raise errors.StoreUnavailableError("away", retry_after=1)
        assert call.script == "keep"
        self.calls.append(tuple(str(one) for one in call.arguments[4:]))
        return True

    @property
    def places(self) -> set[str]:
        return {one for call in self.calls for one in call}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def _idle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_taken_is_known_to_the_ledger_and_the_next_is_reserved_ahead() -> None:
    ledger, clock = Ledger(), Clock()
    reserved = Reservations(ledger, clock)
    first = await reserved.take("alice")
    assert ledger.calls == [(place_of("alice", first),)]
    await _idle()
    ledger.let.clear()
    second = await asyncio.wait_for(reserved.take("alice"), 1)
    assert place_of("alice", second) in ledger.places, "it did not wait for the ledger"
    assert second != first


async def test_a_burst_takes_a_call_for_many() -> None:
    ledger = Ledger()
    reserved = Reservations(ledger, Clock())
    ids = [one for _ in range(10) for one in await asyncio.gather(*(reserved.take("alice") for _ in range(32)))]
    assert len(set(ids)) == 320
    assert {place_of("alice", id_) for id_ in ids} <= ledger.places
    assert len(ledger.calls) <= 20
    assert max(len(call) for call in ledger.calls) == MOST_AHEAD


async def test_a_tenant_who_sends_little_has_one_ahead() -> None:
    ledger, clock = Ledger(), Clock()
    reserved = Reservations(ledger, clock)
    await asyncio.gather(*(reserved.take("alice") for _ in range(100)))
    for _ in range(200):
        await reserved.take("alice")
        clock.now += 2
        await _idle()
    assert len(ledger.calls[-1]) == 1


async def test_what_was_reserved_long_ago_is_not_used() -> None:
    ledger, clock = Ledger(), Clock()
    reserved = Reservations(ledger, clock)
    await reserved.take("alice")
    await _idle()
    old = ledger.calls[-1]
    clock.now += FRESH_S + 1
    assert place_of("alice", await reserved.take("alice")) not in old
    assert FRESH_S < reservations.ORPHANS_S / 2


async def test_a_ledger_that_is_away_is_told_to_all_who_wait_and_asked_again() -> None:
    ledger = Ledger()
    reserved = Reservations(ledger, Clock())
    ledger.is_away = True
    told = await asyncio.gather(*(reserved.take("alice") for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in told] == [errors.StoreUnavailableError] * 5
    ledger.is_away = False
    assert place_of("alice", await reserved.take("alice")) in ledger.places


async def test_one_who_hangs_up_takes_nothing_from_the_others() -> None:
    ledger = Ledger()
    reserved = Reservations(ledger, Clock())
    ledger.let.clear()
    waiting = [asyncio.create_task(reserved.take("alice")) for _ in range(3)]
    await _idle()
    waiting[0].cancel()
    await _idle()
    ledger.let.set()
    assert len(set(await asyncio.gather(*waiting[1:]))) == 2
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]


async def test_tenants_have_their_own_and_those_of_long_ago_are_forgotten() -> None:
    reserved = Reservations(Ledger(), Clock())
    for n in range(REMEMBERED + 10):
        await reserved.take(f"tenant-{n}")
    assert len(reserved._tenants) == REMEMBERED
    assert "tenant-0" not in reserved._tenants
