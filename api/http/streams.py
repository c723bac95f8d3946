"""Server-sent events as every published client can read them, whatever they tell.

Lines end in LF, `event:` comes before `data:`; a comment is sent when nothing else is, a reader that does not read is dropped,
and a process that stops tells its streams before it closes them.
"""

from collections.abc import AsyncIterator, Callable, Mapping

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent

KEEP_ALIVE_S = 15
SLOW_READER_S = 15
GOODBYE_S = 2.0
"""How long a stream has to say goodbye when the process stops."""


def frame(data: str, *, name: str | None = None, id_: str | None = None) -> bytes:
    """An event as it goes over the wire."""
    return ServerSentEvent(data, event=name, id=id_, sep="\n").encode()


def comment(text: str = "") -> bytes:
    """Something that readers pass over."""
    return ServerSentEvent(comment=text, sep="\n").encode()


def response(
    frames: Callable[[anyio.Event], AsyncIterator[bytes]], *, headers: Mapping[str, str] | None = None
) -> EventSourceResponse:
    """The response whose body are these frames; the event they are given is set when the process stops."""
    stopping = anyio.Event()
    return EventSourceResponse(
        frames(stopping),
        ping=KEEP_ALIVE_S,
        ping_message_factory=lambda: ServerSentEvent(comment="keep-alive", sep="\n"),
        send_timeout=SLOW_READER_S,
        shutdown_event=stopping,
        shutdown_grace_period=GOODBYE_S,
        headers={"Cache-Control": "no-cache", **(headers or {})},
    )
