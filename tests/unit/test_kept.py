"""What many ask for is read once."""

import asyncio

import pytest

from api.service.kept import Kept


class Source:
    """Counts how often it is read; a read ends when it is let."""

    def __init__(self) -> None:
        self.reads = 0
        self.let = asyncio.Event()
        self.let.set()
        self.fault: Exception | None = None

    async def read(self) -> int:
        self.reads += 1
        number = self.reads
        await self.let.wait()
        if self.fault is not None:
            raise self.fault
        return number


async def test_a_thousand_ask_and_one_reads() -> None:
    source = Source()
    kept = Kept(source.read)
    assert await asyncio.gather(*(kept.get() for _ in range(1000))) == [1] * 1000
    assert source.reads == 1


async def test_while_it_is_read_anew_the_old_one_is_used() -> None:
    source = Source()
    kept = Kept(source.read, fresh_s=-1, stale_s=60)
    assert await kept.get() == 1
    source.let.clear()
    assert [await kept.get() for _ in range(5)] == [1] * 5
    await asyncio.sleep(0)
    assert source.reads == 2, "one at a time"
    source.let.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert await kept.get() == 2


async def test_what_is_too_old_is_waited_for() -> None:
    source = Source()
    kept = Kept(source.read, fresh_s=-1, stale_s=-1)
    assert [await kept.get() for _ in range(3)] == [1, 2, 3]


async def test_a_fault_is_told_to_all_who_wait_and_tried_again() -> None:
    source = Source()
    source.fault = OSError("away")
    kept = Kept(source.read)
    told = await asyncio.gather(*(kept.get() for _ in range(10)), return_exceptions=True)
    assert [str(one) for one in told] == ["away"] * 10
    assert source.reads == 1
    source.fault = None
    assert await kept.get() == 2


async def test_a_caller_that_hangs_up_takes_it_from_nobody() -> None:
    source = Source()
    source.let.clear()
    kept = Kept(source.read)
    first, second = asyncio.create_task(kept.get()), asyncio.create_task(kept.get())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.let.set()
    assert (await second, source.reads) == (1, 1)
