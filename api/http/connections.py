"""Connections as the server accepts them: so many at once, each with its request's head in time and of a size.

uvicorn by itself waits for a request's head as long as a client likes, and holds as many connections as there are file
descriptors, after which nobody is answered. Of too many connections the one that has waited longest for a request goes first.
"""

import asyncio
import resource
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers, and of what a body of chunks has beside its bytes. A signed link has two kilobytes."""

UNREAD_S = 60
"""Seconds in which a client reads enough of an answer that more of it can be sent."""

RESERVED_FILES = 256
"""File descriptors for everything but clients: the stores, threads, modules."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds until a request's head must be whole, and connections at the same time."""

    head_s: float
    connections: int


def protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """The protocol class for uvicorn; all its connections count together."""
    waiting: OrderedDict[HttpToolsProtocol, None] = OrderedDict()
    # Otherwise the system's own limit would be met first, and then nobody is accepted.
    most = min(limits.connections, _files_allowed() - RESERVED_FILES)

    class Guarded(HttpToolsProtocol):
        """A connection that waits for a request (`waiting`), or serves one."""

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._head_timer: asyncio.TimerHandle | None = None
            self._write_timer: asyncio.TimerHandle | None = None
            # Since the last head was whole, or the last piece of a body came.
            self._loose_bytes = 0
            self._in_body = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > most:
                longest = next(iter(waiting), None)
                (longest or self).transport.abort()
                if longest is None:
                    return
                del waiting[longest]
            waiting[self] = None
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            self._loose_bytes += len(data)
            if self in waiting and self._head_timer is None:
                self._expect_head()
            super().data_received(data)
            if self._loose_bytes > MAX_HEAD_BYTES:
                self.transport.abort()

        def on_header(self, name: bytes, value: bytes) -> None:
            # After a body of chunks come trailers, of which nothing here is read: they are no headers that a proxy has seen.
            if not self._in_body:
                super().on_header(name, value)

        def on_body(self, body: bytes) -> None:
            self._loose_bytes = 0
            super().on_body(body)

        def on_headers_complete(self) -> None:
            waiting.pop(self, None)
            self._stop_expecting()
            self._loose_bytes, self._in_body = 0, True
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._in_body = False
            if self.cycle is not None and self.cycle.response_complete:
                self._stop_expecting()
                self._wait()

        def on_response_complete(self) -> None:
            is_whole = not self.cycle.more_body
            super().on_response_complete()
            if is_whole:
                self._wait()
            elif self.cycle.response_complete:
                # Answered before the body has come: who closed at once would have the client miss the answer, and who waited for
                # ever would be held.
                self._expect_head()

        def _wait(self) -> None:
            # Unless another request came while this one was served.
            if self.cycle.response_complete and not self.transport.is_closing():
                waiting[self] = None

        def pause_writing(self) -> None:
            # For a client that does not read its answer, the answer would be kept here for ever.
            super().pause_writing()
            self._write_timer = self.loop.call_later(UNREAD_S, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._stop_writing_timer()

        def _stop_writing_timer(self) -> None:
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None

        def connection_lost(self, exc: Exception | None) -> None:
            waiting.pop(self, None)
            self._stop_expecting()
            self._stop_writing_timer()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            self._head_timer = self.loop.call_later(limits.head_s, self.transport.abort)

        def _stop_expecting(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return Guarded


def _files_allowed() -> int:
    """File descriptors of this process, raised to what the system allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 2**20
