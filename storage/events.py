"""Reading the event log: replay one tenant's past from a cursor, or follow everybody's present.

Appending is the ledger's business; it happens inside the transition that caused the event.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from storage import keys
from storage.contracts import errors, events
from storage.ledger.archive import EVENTS_KEPT_S
from storage.ledger.execution import FAULTS, unavailable

PAGE = 200
RETENTION_MS = keys.LIFETIMES_S["events"] * 1000


def cursor_at(seconds_ago: float) -> str:
    """A cursor for a moment in the past, by this machine's clock."""
    return f"{int((time.time() - seconds_ago) * 1000)}-0"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Whether the log still holds everything after a cursor. `latest` is the log's newest cursor."""

    complete: bool
    latest: str


class EventLog:
    """The streams behind the event endpoint."""

    def __init__(
        self,
        connection: redis.asyncio.Redis,
        follower: redis.asyncio.Redis,
        *,
        confirm: Callable[[], Awaitable[None]] | None = None,
        replicas: int = 0,
    ) -> None:
        """`follower` is a connection of its own whose time-out is longer than a blocking read.

        Before anybody is told of what was read, `confirm` makes sure that it outlives the primary, which is one only with so many
        `replicas`.
        """
        self._confirm = confirm
        self._replicas = replicas
        # redis-py types stream replies for every protocol version and encoding at once; ours is one of them.
        self._connection: Any = connection
        self._follower: Any = follower

    async def coverage(self, tenant: str, cursor: str) -> Coverage:
        """Can a reader continue from here without a gap? Raises `errors.StoreUnavailableError`."""
        place = events.order(cursor)
        trimmed = await self._trimmed_past(keys.EVENTS + tenant, cursor)
        too_old = place[0] < time.time() * 1000 - RETENTION_MS
        from_the_future = place[0] > time.time() * 1000 + 60_000
        latest = await self.latest()
        return Coverage(complete=not (trimmed or too_old or from_the_future), latest=latest)

    async def _trimmed_past(self, stream: str, cursor: str) -> bool:
        """Whether entries after a cursor are no longer there. One command, so that nothing is added between two looks.

        Those that were erased with their generations are not missed.
        """
        info = await self._asked(self._connection, lambda pipeline: pipeline.xinfo_stream(stream), may_fail=True)
        if isinstance(info, redis.ResponseError):
            return False  # there is no stream, so nothing was ever taken from it
        is_recent = events.order(cursor)[0] > (time.time() - EVENTS_KEPT_S) * 1000
        if is_recent and info["entries-added"] <= keys.LOG_LENGTH:
            return False  # too few and too new to have been trimmed
        first = info["first-entry"]
        # Where nothing is left, all that ever was is missing.
        begins = first[0] if first else info["last-generated-id"]
        return bool(info["entries-added"] > info["length"] and events.order(cursor) < events.order(begins))

    async def replay(self, tenant: str, after: str) -> Sequence[events.Event]:
        """Up to `PAGE` of a tenant's events after a cursor, oldest first. Raises `errors.StoreUnavailableError`."""
        entries = await self._asked(
            self._connection, lambda pipeline: pipeline.xrange(keys.EVENTS + tenant, min=f"({after}", count=PAGE)
        )
        return await self._told(entries)

    async def _told(self, entries: Sequence[tuple[str, Mapping[str, str]]]) -> Sequence[events.Event]:
        if entries and self._confirm is not None:
            await self._confirm()
        return [events.Event.from_entry(cursor, entry) for cursor, entry in entries]

    async def latest(self) -> str:
        """The newest cursor. Raises `errors.StoreUnavailableError`."""
        newest = await self._asked(self._connection, lambda pipeline: pipeline.xrevrange(keys.LIVE_EVENTS, count=1))
        if newest:
            return str(newest[0][0])
        # By the clock that gives events their cursors; the next may be of this very millisecond.
        seconds, microseconds = await self._asked(self._connection, lambda pipeline: pipeline.time())
        return f"{seconds * 1000 + microseconds // 1000 - 1}-0"

    async def follow(self, after: str, block_ms: int, count: int) -> Sequence[events.Event]:
        """Up to `count` of everybody's events after a cursor, waiting up to `block_ms` for one.

        Raises `errors.StoreUnavailableError`.
        """
        reply = await self._asked(
            self._follower, lambda pipeline: pipeline.xread({keys.LIVE_EVENTS: after}, count=count, block=block_ms)
        )
        return await self._told(reply[0][1] if reply else [])

    async def _asked(self, connection: Any, ask: Callable[[Any], object], *, may_fail: bool = False) -> Any:
        """A reply of the primary; with `may_fail` an error, too. Raises `errors.StoreUnavailableError`.

        A server that is primary no more would answer as well, from what it remembers, and what came since would be missed.
        """
        try:
            pipeline = connection.pipeline(transaction=False)
            ask(pipeline)
            if self._replicas:
                pipeline.execute_command("ROLE")
            reply, *role = await pipeline.execute(raise_on_error=False)
            if role and not _is_primary(role[0], self._replicas):
                await connection.connection_pool.disconnect(inuse_connections=False)
                raise errors.StoreUnavailableError("A server that is no primary answers")
            if isinstance(reply, Exception) and not may_fail:
                raise reply
        except FAULTS as exc:
            raise unavailable(exc) from exc
        return reply

    async def gap(self, after: str) -> bool:
        """Whether the live stream was trimmed past a cursor while nobody followed it."""
        return await self._trimmed_past(keys.LIVE_EVENTS, after)


def _is_primary(role: Sequence[Any], replicas: int) -> bool:
    """Whether a reply to ROLE is a primary's that has so many replicas."""
    return not isinstance(role, Exception) and role[0] == "master" and len(role[2]) >= replicas
