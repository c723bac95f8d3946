"""Ids of generations to come, with a place for their pictures that the ledger knows already.

A picture may be stored only once the ledger is told to delete it, should nobody ask for it. That is done ahead, for as many as a
tenant is about to send: so a request does not wait for it, and a burst needs a call for many instead of one for each.
"""

import asyncio
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable

from storage.ledger import call, expiry

ORPHANS_S = 3600
"""After which pictures are deleted that were stored for a submission which was never recorded."""

FRESH_S = 60.0
"""Seconds for which a reservation is used: what is left of `ORPHANS_S` is enough to store pictures."""

MOST_AHEAD = 32
"""Reservations made at a time for a tenant who sends many; one who sends few has one."""

REMEMBERED = 1000
"""Tenants, those who sent pictures last. What was reserved for others is let go, and deleted as what nobody asked for."""


def place_of(tenant: str, id_: str) -> str:
    """The prefix of the pictures that belong to a submission whose first generation this is."""
    return f"inputs/{tenant}/{id_}/"


class Reservations:
    """Takes what was reserved, and reserves more in time."""

    def __init__(self, ledger: call.AsyncLedger, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._tenants: OrderedDict[str, _Ahead] = OrderedDict()

    async def take(self, tenant: str) -> str:
        """An id whose place is known, and nobody else's. Raises `errors.StoreUnavailableError`."""
        ahead = self._tenants.setdefault(tenant, _Ahead())
        self._tenants.move_to_end(tenant)
        if len(self._tenants) > REMEMBERED:
            self._tenants.popitem(last=False)
        while (id_ := ahead.next(self._clock())) is None:
            # A caller that hangs up does not take it away from the others.
            await asyncio.shield(self._reserving(tenant, ahead))
        if not ahead.ids:
            self._reserving(tenant, ahead)
        return id_

    def _reserving(self, tenant: str, ahead: "_Ahead") -> asyncio.Task[None]:
        if ahead.reserving is None:
            ahead.reserving = asyncio.create_task(self._reserve(tenant, ahead))
            ahead.reserving.add_done_callback(ahead.reserved)
        return ahead.reserving

    async def _reserve(self, tenant: str, ahead: "_Ahead") -> None:
        now = self._clock()
        ids = [str(uuid.uuid4()) for _ in range(ahead.wanted(now))]
        await self._ledger.run(expiry.keep([place_of(tenant, id_) for id_ in ids], seconds=ORPHANS_S))
        ahead.ids.extend((id_, now) for id_ in ids)


class _Ahead:
    """What is reserved for a tenant."""

    def __init__(self) -> None:
        self.ids: deque[tuple[str, float]] = deque()
        self.reserving: asyncio.Task[None] | None = None
        self._count, self._last = 1, float("-inf")

    def next(self, now: float) -> str | None:
        """The next that is fresh."""
        while self.ids:
            id_, since = self.ids.popleft()
            if now - since <= FRESH_S:
                return id_
        return None

    def wanted(self, now: float) -> int:
        """How many to reserve: about as many as a second takes."""
        is_soon = now - self._last < 1.0
        self._last = now
        self._count = min(2 * self._count, MOST_AHEAD) if is_soon else max(1, self._count // 2)
        return self._count

    def reserved(self, reserving: asyncio.Task[None]) -> None:
        """It is over; those who wait for it are told how."""
        self.reserving = None
        if not reserving.cancelled():
            reserving.exception()
