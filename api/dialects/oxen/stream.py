"""The event stream, framed so that every published client can read it.

LF line ends, `event:` before `data:`, compact JSON. After a terminal event come 4 KiB of comment, because mawk (Debian's
awk) holds back shorter input, and a moment later one more line, because curl notices only when writing that its reader
has gone.
"""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from sse_starlette import EventSourceResponse, ServerSentEvent

from api.broadcast import Hub, Subscription
from api.dialects.oxen import answers
from storage import events as event_log
from storage.contracts import events

PADDING = "." * 4096
NUDGE_S = 0.25
KEEP_ALIVE_S = 15
SLOW_READER_S = 15

HELLO = "hello"
RESYNC = "resync"


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events a subscriber wants; None wants all."""

    generation_id: str | None
    types: frozenset[events.EventType] | None

    def __call__(self, event: events.Event) -> bool:
        """Whether this one is wanted."""
        return self.generation_id in (None, event.generation_id) and (self.types is None or event.type in self.types)


def respond(
    *,
    tenant: str,
    since: str | None,
    replay_s: float,
    wants: Filter,
    log: event_log.EventLog,
    hub: Hub,
    sign: answers.Sign,
) -> EventSourceResponse:
    """The response: past events after `since` (or the recent terminal ones), then everything as it happens."""
    return EventSourceResponse(
        _frames(tenant=tenant, since=since, replay_s=replay_s, wants=wants, log=log, hub=hub, sign=sign),
        ping=KEEP_ALIVE_S,
        ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
        send_timeout=SLOW_READER_S,
        headers={"Cache-Control": "no-cache"},
    )


async def _frames(
    *,
    tenant: str,
    since: str | None,
    replay_s: float,
    wants: Filter,
    log: event_log.EventLog,
    hub: Hub,
    sign: answers.Sign,
) -> AsyncIterator[ServerSentEvent]:
    with hub.subscribe(tenant, wants) as subscription:
        start = since or event_log.cursor_at(replay_s)
        # Never without an id: a reader cut off before its first event can resume from here.
        yield _frame(HELLO, start, {"cursor": start, "replay": "all" if since else "terminal"})
        if since:
            coverage = await log.coverage(tenant, since)
            if not coverage.complete:
                start = coverage.latest
                yield _frame(RESYNC, start, {"cursor": start, "reason": "the log does not reach back to this cursor"})
        async for event in _events(tenant, start, subscription, log, fresh=since is None, wants=wants):
            if event is None:
                yield ServerSentEvent(comment="", sep="\n")
                continue
            yield _frame(event.type.value, event.cursor, answers.event(event, sign))
            if event.type in events.TERMINAL:
                yield ServerSentEvent(comment=PADDING, sep="\n")


async def _events(
    tenant: str,
    start: str,
    subscription: Subscription,
    log: event_log.EventLog,
    *,
    fresh: bool,
    wants: Callable[[events.Event], bool],
) -> AsyncIterator[events.Event | None]:
    """Past, then present, without gap or repetition. None asks for a nudge after a terminal event."""
    last = start
    while batch := await log.replay(tenant, last):
        for event in batch:
            last = event.cursor
            if wants(event) and (event.type in events.TERMINAL or not fresh):
                yield event
    yield None
    nudge = False
    while True:
        try:
            happened = await subscription.next(NUDGE_S if nudge else None)
        except TimeoutError:
            nudge = False
            yield None
            continue
        if happened is None:
            return
        if events.order(happened.cursor) > events.order(last):
            nudge = happened.type in events.TERMINAL
            yield happened


def _frame(name: str, cursor: str, data: object) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data, separators=(",", ":")), event=name, id=cursor, sep="\n")
