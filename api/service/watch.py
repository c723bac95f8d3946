"""One reader of the event log per process, many subscribers in memory.

A subscriber that does not keep up is dropped, never buffered without bound: its last cursor lets it resume.
"""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator

import anyio

from storage import connections
from storage.contracts import errors, events
from storage.events import EventLog, cursor_at

log = logging.getLogger(__name__)

BUFFER = 256
BATCH = BUFFER // 2
"""Events read at once: fewer than a subscriber may have waiting, or a burst would drop those who keep up."""
BLOCK_MS = 1000


class Subscription:
    """One subscriber's events, in order: all that come after the cursor `after`."""

    def __init__(self, wants: Callable[[events.Event], bool], after: str) -> None:
        self.after = after
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

    async def close_at(self, stopping: anyio.Event) -> None:
        """Close when this is set."""
        await stopping.wait()
        self.close()

    async def next(self, timeout_s: float | None = None) -> events.Event | None:
        """The next event; None when closed. Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            return await self._queue.get()


class Hub:
    """Follows the log and hands every event to whom it concerns."""

    def __init__(self, event_log: EventLog, *, told: Callable[[events.Event], None] = lambda _: None) -> None:
        """`told` learns of every event that reaches this process."""
        self._told = told
        self._log = event_log
        self._subscriptions: dict[str, set[Subscription]] = defaultdict(set)
        self._cursor: str | None = None

    @contextlib.contextmanager
    def subscribe(
        self,
        tenant: str,
        wants: Callable[[events.Event], bool] = lambda _: True,
        *,
        stopping: anyio.Event | None = None,
    ) -> Iterator[Subscription]:
        """Receive a tenant's events from now on, until `stopping` is set (the process stops, for one).

        Registered before anything is awaited, so nothing slips through.
        """
        subscription = Subscription(wants, self._cursor or cursor_at(0))
        self._subscriptions[tenant].add(subscription)
        closing = asyncio.create_task(subscription.close_at(stopping)) if stopping else None
        try:
            yield subscription
        finally:
            if closing is not None:
                closing.cancel()
            subscribers = self._subscriptions[tenant]
            subscribers.discard(subscription)
            if not subscribers:
                del self._subscriptions[tenant]

    async def run(self) -> None:
        """Follow the log until cancelled. Whatever goes wrong is tried again: without this, nobody would be told anything."""
        while not connections.is_cancelled():
            try:
                await self._step()
            except errors.StoreUnavailableError as exc:
                log.warning("event log unreachable: %s", exc)
                await asyncio.sleep(0.5)
            except Exception:
                log.exception("the event log cannot be followed")
                await asyncio.sleep(0.5)

    async def _step(self) -> None:
        if self._cursor is None or await self._log.gap(self._cursor):
            # A subscriber from before this cursor was known may have missed something, and is asked to resume.
            self._cursor = await self._log.latest()
            self.close()
        while not connections.is_cancelled() and (batch := await self._log.follow(self._cursor, BLOCK_MS, BATCH)):
            # A full one says that there is more: of a log that is trimmed to far more than that, some may be gone.
            if len(batch) == BATCH and await self._log.gap(self._cursor):
                return
            for event in batch:
                self._cursor = event.cursor
                self._told(event)
                for subscription in tuple(self._subscriptions.get(event.tenant, ())):
                    subscription.offer(event)
            # Let subscribers take what they were offered before there is more.
            await asyncio.sleep(0)

    def close(self) -> None:
        """Drop every subscriber; each has a cursor to resume from."""
        for subscribers in tuple(self._subscriptions.values()):
            for subscription in tuple(subscribers):
                subscription.close()
