"""Turns: what is worked on next of all that is here, so that one tenant's flood does not slow the others down.

One event loop works on all requests that it has. A tenant alone has `ALONE` turns at a time; beside others it has one, so a
request of another tenant waits for one of a flood's and not for all that are queued.
"""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from storage.contracts import errors

ALONE = 16
"""Turns at a time of a tenant beside whom nobody is."""

HERE_S = 5.0
"""Seconds after its last request for which a tenant counts as being here: who polls does that every few seconds."""

MOST_WAITING = 1024
"""Requests of one tenant that wait for a turn; further ones are refused. Each keeps its body and its connection."""

HOLD_S = 0.5
"""Seconds for which a refusal is held."""

MOST_HELD = 64
"""Refusals of one tenant that are held at a time; a connection is kept for each. Further ones are answered at once."""


class Turns:
    """Turns of all tenants in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        # When each was here last; the latest is last.
        self._here: OrderedDict[str, float] = OrderedDict()
        self._held: Counter[str] = Counter()

    async def take(self, tenant: str) -> None:
        """Wait for a turn of the tenant's; each is ended by `end`. Raises `errors.TooManyRequestsError`."""
        self._here[tenant] = self._clock()
        self._here.move_to_end(tenant)
        if self._is_free(tenant):
            self._taken[tenant] += 1
            return
        waiting = self._waiting.setdefault(tenant, deque())
        if len(waiting) >= MOST_WAITING:
            raise errors.TooManyRequestsError(f"{MOST_WAITING} requests wait already")
        begins: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(begins)
        try:
            await begins
        except asyncio.CancelledError:
            if not begins.cancelled():
                self.end(tenant)
            raise

    def end(self, tenant: str) -> None:
        """What had the turn is done, or waits for something else."""
        self._taken -= Counter([tenant])
        waiting = self._waiting.get(tenant, deque())
        while waiting and self._is_free(tenant):
            begins = waiting.popleft()
            if not begins.cancelled():
                self._taken[tenant] += 1
                begins.set_result(None)
        if not waiting:
            self._waiting.pop(tenant, None)

    async def hold(self, tenant: str) -> None:
        """Wait before the tenant is told that it asks too much: who repeats at once would keep this process busy."""
        if self._held[tenant] >= MOST_HELD:
            return
        self._held[tenant] += 1
        try:
            await asyncio.sleep(HOLD_S)
        finally:
            self._held -= Counter([tenant])

    def _is_free(self, tenant: str) -> bool:
        return self._taken[tenant] < (ALONE if self.is_alone(tenant) else 1)

    def is_alone(self, tenant: str) -> bool:
        """Whether nobody else asks for anything, or did a moment ago."""
        if any(other != tenant for other in self._taken):
            return False
        latest = next((at for other, at in reversed(self._here.items()) if other != tenant), None)
        return latest is None or self._clock() - latest > HERE_S
