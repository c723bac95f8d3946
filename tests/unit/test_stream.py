"""A subscriber hears of everything from the moment it was greeted."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Sequence

import pytest

from api.dialects.oxen import stream
from api.service.streams import OpenStreams
from storage.contracts import events
from storage.events import Coverage
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


class Pages(Log):
    """A log that is read two events at a time, and loses its oldest after the first page."""

    def __init__(self) -> None:
        super().__init__()
        self.kept_from = 0
        self._pages = self._first = 0

    def _is_kept(self, event: events.Event) -> bool:
        return int(event.generation_id) >= self._first

    async def replay(self, tenant: str, after: str) -> Sequence[events.Event]:
        self._first = self.kept_from if self._pages else 0
        self._pages += 1
        return [one for one in self.entries if events.order(one.cursor) > events.order(after) and self._is_kept(one)][
            :2
        ]

    async def coverage(self, tenant: str, cursor: str) -> Coverage:
        lost = [one for one in self.entries if not self._is_kept(one)]
        is_complete = all(events.order(one.cursor) <= events.order(cursor) for one in lost)
        return Coverage(complete=is_complete, latest=await self.latest())


@pytest.mark.parametrize("since", ["5000000000000-0", None])
@pytest.mark.parametrize(
    ("kept_from", "told"),
    [
        (0, ["1", "2", "3", "4", "5", "6"]),
        (3, ["1", "2", "3", "4", "5", "6"]),
        (4, ["1", "2", "resync"]),
        (6, ["1", "2", "resync"]),
    ],
)
async def test_what_is_lost_while_the_past_is_told_is_told_of(
    monkeypatch: pytest.MonkeyPatch, since: str | None, kept_from: int, told: list[str]
) -> None:
    monkeypatch.setattr(stream, "LOOK_S", 0.01)
    log = Pages()
    ended = [
        dataclasses.replace(_event(n, cursor=f"5000000000000-{n}"), type=events.EventType.COMPLETED)
        for n in range(1, 7)
    ]
    log.entries += ended
    log.kept_from = kept_from
    alive = True

    async def until_quiet() -> bool:
        return alive

    found: list[str] = []
    async with Following() as following, asyncio.timeout(5):
        answer = stream.Stream(
            tenant="alice", is_allowed=until_quiet, since=since, replay_s=60,
            wants=stream.Filter(generation_id=None, types=None), log=log,  # type: ignore[arg-type]
            hub=following.hub, sign=lambda _: None, open_streams=OpenStreams(1, 1),  # type: ignore[arg-type, return-value]
        ).response()  # fmt: skip
        async for frame in answer.body_iterator:
            text = bytes(frame).decode()  # type: ignore[arg-type]
            if frame == stream.NUDGE:
                alive = False
            elif "event: resync" in text:
                found.append("resync")
            elif "event: media_generation_completed" in text:
                found.append(text.partition("id: 5000000000000-")[2][0])
    assert found == told
