"""Places on a conveyor, and inputs that are slow to arrive: they leave their place to others, and no tenant has many of them.

Else whoever names servers that do not answer would hold up everybody's edits.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable

SLOW, SLOW_OF_TENANT = 16, 4
"""Slow inputs beside the belt, of all and of one tenant. What else that tenant has by URL is left to other workers meanwhile."""

SLOW_AFTER_S = 0.1
"""An input that takes longer is slow."""

EXPECTED_S = 60.0
"""How long after a slow input another of the same tenant is expected to be slow."""


class Belt:
    """So many places; beside them inputs that are slow. Thread-safe."""

    def __init__(
        self,
        places: int,
        *,
        slow_after_s: float = SLOW_AFTER_S,
        aside: int = SLOW,
        aside_of_tenant: int = SLOW_OF_TENANT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An input is slow once it takes longer than `slow_after_s`. `aside` of them stand beside the belt at the most."""
        self._free, self._most_aside, self._of_tenant = places, aside, aside_of_tenant
        self._slow_after_s, self._clock = slow_after_s, clock
        self._arriving: dict[Hashable, tuple[str, float]] = {}
        self._aside: dict[Hashable, str] = {}
        self._last_slow: dict[str, float] = {}
        self._changed = threading.Condition()

    def take(self) -> None:
        """Take a place once there is one; an input that is slow steps aside for it."""
        with self._changed:
            while not self._free and not self._one_steps_aside():
                self._changed.wait(self._slow_after_s / 4)
            self._free -= 1

    def begin(self, holder: Hashable, tenant: str) -> None:
        """The place just taken is this holder's, whose input is on its way."""
        with self._changed:
            self._arriving[holder] = (tenant, self._clock())

    def slow(self) -> Counter[str]:
        """How many slow inputs each tenant has."""
        with self._changed:
            arriving = [whose for whose, since in self._arriving.values() if self._is_slow(since)]
            return Counter([*arriving, *self._aside.values()])

    def expects_slow(self, tenant: str) -> bool:
        """Whether a tenant has a slow input, or had one a moment ago."""
        with self._changed:
            return self.slow()[tenant] > 0 or self._clock() - self._last_slow.get(tenant, -math.inf) < EXPECTED_S

    def slow_tenants(self) -> frozenset[str]:
        """Tenants that have as many slow inputs as they may have."""
        return frozenset(tenant for tenant, count in self.slow().items() if count >= self._of_tenant)

    def arrived(self, holder: Hashable) -> None:
        """Its input is there: one that stepped aside waits for a place."""
        with self._changed:
            self._note_whether_slow(holder)
            self._arriving.pop(holder, None)
            if holder in self._aside:
                self._changed.wait_for(lambda: self._free > 0)
                self._free -= 1
                del self._aside[holder]

    def leave(self, holder: Hashable) -> None:
        """Its place is free; or it stood aside, and its input never came."""
        with self._changed:
            self._note_whether_slow(holder)
            self._arriving.pop(holder, None)
            if self._aside.pop(holder, None) is None:
                self._free += 1
            self._changed.notify_all()

    def _note_whether_slow(self, holder: Hashable) -> None:
        tenant, since = self._arriving.get(holder, (None, math.inf))
        if not self._is_slow(since):
            tenant = self._aside.get(holder)
        if tenant is not None:
            now = self._clock()
            self._last_slow = {one: at for one, at in self._last_slow.items() if now - at < EXPECTED_S}
            self._last_slow[tenant] = now

    def _is_slow(self, since: float) -> bool:
        return self._clock() - since > self._slow_after_s

    def _one_steps_aside(self) -> bool:
        if len(self._aside) >= self._most_aside:
            return False
        for holder, (tenant, since) in self._arriving.items():
            if self._is_slow(since):
                del self._arriving[holder]
                self._aside[holder] = tenant
                self._free += 1
                return True
        return False
