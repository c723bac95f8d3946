"""A subscriber hears of everything from the moment it was greeted."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from api.dialects.oxen import stream
from api.service.streams import OpenStreams
from storage.contracts import events
from tests.unit.test_watch import Following, Log, _event


class Past(Log):
    """A log whose past is only read after something more happened."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: list[events.Event] = []

    async def replay(self, tenant: str, after: str) -> Sequence[events.Event]:
        self.entries += self.meanwhile
        self.meanwhile = []
        return [event for event in self.entries if events.order(event.cursor) > events.order(after)]


async def _always() -> bool:
    return True


async def test_what_happens_between_hello_and_the_reading_of_the_past_is_told() -> None:
    past = Past()
    past.entries.append(_event(1, cursor="5000000000000-1"))
    past.meanwhile.append(_event(2, cursor="5000000000000-2"))
    async with Following(past) as following:
        answer = stream.Stream(
            tenant="alice",
            is_allowed=_always,
            since=None,
            replay_s=60,
            wants=stream.Filter(generation_id=None, types=None),
            log=past,  # type: ignore[arg-type]
            hub=following.hub,
            sign=lambda _: None,  # type: ignore[arg-type, return-value]
            open_streams=OpenStreams(1, 1),
        ).response()
        frames = answer.body_iterator
        async with contextlib.aclosing(frames):  # type: ignore[type-var]
            assert b"event: hello" in await anext(frames)  # type: ignore[arg-type, operator]
            started = await anext(frames)  # type: ignore[arg-type]
    assert b"id: 5000000000000-2" in started, "the second: the first had happened before"  # type: ignore[operator]


def test_padding_fills_a_block_of_a_reader_with_lines_that_fit_into_one() -> None:
    lines = stream.PADDING.splitlines()
    assert len(stream.PADDING) >= 4096
    assert {len(line) for line in lines if line} == {63}
    assert all(line.startswith(b": ") for line in lines if line)


async def test_a_stream_on_which_nothing_happens_ends_with_its_readers_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LOOK_S", 0.01)

    async def never() -> bool:
        return False

    async with Following(Past()) as following:
        answer = stream.Stream(
            tenant="alice", is_allowed=never, since=None, replay_s=60,
            wants=stream.Filter(generation_id=None, types=None), log=Past(),  # type: ignore[arg-type]
            hub=following.hub, sign=lambda _: None, open_streams=OpenStreams(1, 1),  # type: ignore[arg-type, return-value]
        ).response()  # fmt: skip
        async with asyncio.timeout(5):
            told = [frame async for frame in answer.body_iterator]
    assert b"event: goodbye" in told[-1]  # type: ignore[operator]
