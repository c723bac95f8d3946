"""The event stream, framed so that every published client can read it.

LF line ends, `event:` before `data:`, compact JSON. After a terminal event come 4 KiB of comment, because mawk (Debian's
awk) holds back shorter input, in short lines, because it holds back more once it has met a longer one; and a moment
later one more line, because curl notices only when writing that its reader has gone.
"""

import contextlib
import functools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import anyio
from sse_starlette import EventSourceResponse

from api.dialects.oxen import answers
from api.http import streams
from api.service.streams import OpenStreams
from api.service.watch import Hub, Subscription
from storage import events as event_log
from storage.contracts import errors, events

NUDGE = streams.comment()
PADDING = streams.comment("\n".join(["." * 61] * 65))
NUDGE_S = 0.25
LOOK_S = 15.0
"""How often a quiet stream is asked whether its reader still may have it."""

HELLO, RESYNC, GOODBYE = "hello", "resync", "goodbye"
"""Frames of the stream itself. Each carries a cursor, so that a reader cut off anywhere can resume."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events a subscriber wants; None wants all."""

    generation_id: str | None
    types: frozenset[events.EventType] | None

    def __call__(self, event: events.Event) -> bool:
        """Whether this one is wanted."""
        return self.generation_id in (None, event.generation_id) and (self.types is None or event.type in self.types)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One subscriber's stream: past events after `since` (or the recent terminal ones), then everything as it happens."""

    tenant: str
    is_allowed: Callable[[], Awaitable[bool]]
    """Whether the subscriber may still read: a key can be revoked."""
    since: str | None
    replay_s: float
    wants: Filter
    log: event_log.EventLog
    hub: Hub
    sign: answers.Sign
    open_streams: OpenStreams

    def response(self) -> EventSourceResponse:
        """The HTTP response."""
        return streams.response(self._frames)

    async def _frames(self, stopping: anyio.Event) -> AsyncIterator[bytes]:
        async with contextlib.AsyncExitStack() as stack:
            subscription = stack.enter_context(self.hub.subscribe(self.tenant, self.wants, stopping=stopping))
            stack.enter_context(self.open_streams.counted(self.tenant))
            last = self.since or event_log.cursor_at(self.replay_s)
            yield _frame(HELLO, last, {"cursor": last, "replay": "all" if self.since else "terminal"})
            try:
                async for event in self._events(last, subscription):
                    if not await self.is_allowed():
                        break
                    if event is None:
                        yield NUDGE
                        continue
                    if isinstance(event, event_log.Coverage):
                        last = event.latest
                        yield _frame(
                            RESYNC, last, {"cursor": last, "reason": "the log does not reach back to this cursor"}
                        )
                        continue
                    last = event.cursor
                    yield _event_frame(event, self.sign)
                    if event.type in events.TERMINAL:
                        yield PADDING
            except errors.TransientError as exc:
                log.warning("a stream ends early: %s", exc)
            yield _frame(GOODBYE, last, {"cursor": last})

    async def _events(
        self, start: str, subscription: Subscription
    ) -> AsyncIterator[events.Event | event_log.Coverage | None]:
        """Past, then present, without repetition; before what follows a gap, what the log covers.

        None: nothing happened for a while.
        """
        last = start
        nudge = False
        # Those who name no cursor want what is left of the past.
        may_miss = not self.since
        while True:
            batch = await self.log.replay(self.tenant, last)
            # After the reading: what is there now cannot have been taken away before.
            if not may_miss and not (coverage := await self.log.coverage(self.tenant, last)).complete:
                last, may_miss = coverage.latest, True
                yield coverage
                continue
            if not batch:
                break
            may_miss = False
            for event in batch:
                last = event.cursor
                present = events.order(event.cursor) > events.order(subscription.after)
                if self.wants(event) and (self.since or present or event.type in events.TERMINAL):
                    nudge = event.type in events.TERMINAL
                    yield event
        while True:
            try:
                happening = await subscription.next(NUDGE_S if nudge else LOOK_S)
            except TimeoutError:
                nudge = False
                yield None
                continue
            if happening is None:
                return
            if events.order(happening.cursor) > events.order(last):
                nudge = happening.type in events.TERMINAL
                yield happening


@functools.lru_cache(maxsize=256)
def _event_frame(event: events.Event, sign: answers.Sign) -> bytes:
    """An event as it goes over the wire: encoded once, for however many read it."""
    return _frame(event.type.value, event.cursor, answers.event(event, sign))


def _frame(name: str, cursor: str, data: object) -> bytes:
    return streams.frame(json.dumps(data, separators=(",", ":")), name=name, id_=cursor)
