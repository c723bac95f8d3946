"""One reader of the event log per process, many subscribers in memory.

A subscriber that does not keep up is dropped, never buffered without bound: its last cursor lets it resume.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator

from storage.contracts import errors, events
from storage.events import EventLog

log = logging.getLogger(__name__)

BUFFER = 256
BLOCK_MS = 1000


class Subscription:
    """One subscriber's events, in order."""

    def __init__(self, wants: Callable[[events.Event], bool]) -> None:
        self._wants = wants
        self._queue: asyncio.Queue[events.Event | None] = asyncio.Queue()
        self.closed = False

    def offer(self, event: events.Event) -> None:
        """Take an event, or close when too many wait."""
        if self.closed or not self._wants(event):
            return
        if self._queue.qsize() >= BUFFER:
            self.close()
        else:
            self._queue.put_nowait(event)

    def close(self) -> None:
        """Let the subscriber finish what it has, then end."""
        if not self.closed:
            self.closed = True
            self._queue.put_nowait(None)

    async def next(self, timeout_s: float | None = None) -> events.Event | None:
        """The next event; None when closed. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            return await self._queue.get()


class Hub:
    """Follows the log and hands every event to whom it concerns."""

    def __init__(self, event_log: EventLog) -> None:
        self._log = event_log
        self._subscriptions: dict[str, set[Subscription]] = defaultdict(set)
        self._cursor: str | None = None

    @contextlib.contextmanager
    def subscribe(self, tenant: str, wants: Callable[[events.Event], bool] = lambda _: True) -> Iterator[Subscription]:
        """Receive a tenant's events from now on. Registered before anything is awaited, so nothing slips through."""
        subscription = Subscription(wants)
        self._subscriptions[tenant].add(subscription)
        try:
            yield subscription
        finally:
            subscribers = self._subscriptions[tenant]
            subscribers.discard(subscription)
            if not subscribers:
                del self._subscriptions[tenant]

    def subscribers(self, tenant: str) -> int:
        """How many there are."""
        return len(self._subscriptions.get(tenant, ()))

    async def run(self) -> None:
        """Follow the log until cancelled. A store that does not answer is asked again."""
        while True:
            try:
                await self._step()
            except errors.StoreUnavailableError as exc:
                log.warning("event log unreachable: %s", exc)
                await asyncio.sleep(0.5)

    async def _step(self) -> None:
        if self._cursor is None:
            self._cursor = await self._log.latest()
        elif await self._log.gap(self._cursor):
            log.warning("event log ran ahead; subscribers are asked to resume")
            self.close()
            self._cursor = await self._log.latest()
        while batch := await self._log.follow(self._cursor, BLOCK_MS):
            for event in batch:
                self._cursor = event.cursor
                for subscription in tuple(self._subscriptions.get(event.tenant, ())):
                    subscription.offer(event)

    def close(self) -> None:
        """Drop every subscriber; each has a cursor to resume from."""
        for subscribers in tuple(self._subscriptions.values()):
            for subscription in tuple(subscribers):
                subscription.close()
