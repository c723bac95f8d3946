"""Places on a conveyor, and inputs that are slow to arrive: they leave their place to others, and no tenant has many of them.

Else whoever names servers that do not answer would hold up everybody's edits.
"""

import threading
import time
from collections.abc import Callable, Hashable

SLOW, SLOW_OF_TENANT = 16, 4
"""Slow inputs beside the belt, of all and of one tenant. What else that tenant has by URL is put back into the queue."""

SLOW_REST_S = 2.0
"""After which that is claimed again."""

PUT_BACK_EVERY_S = 0.01
"""Thousands of them would keep worker and store busy with nothing else."""


class Belt:
    """So many places; beside them inputs that are slow. Thread-safe."""

    def __init__(
        self,
        places: int,
        *,
        patience_s: float,
        aside: int = SLOW,
        aside_of_tenant: int = SLOW_OF_TENANT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An input is slow once it takes longer than `patience_s`. `aside` of them stand beside the belt at the most."""
        self._free, self._most_aside, self._of_tenant = places, aside, aside_of_tenant
        self._patience_s, self._clock = patience_s, clock
        self._arriving: dict[Hashable, tuple[str, float]] = {}
        self._aside: dict[Hashable, str] = {}
        self._changed = threading.Condition()

    def take(self) -> None:
        """Take a place once there is one; an input that is slow steps aside for it."""
        with self._changed:
            while not self._free and not self._one_steps_aside():
                self._changed.wait(self._patience_s / 4)
            self._free -= 1

    def begin(self, holder: Hashable, tenant: str) -> None:
        """The place just taken is this holder's, whose input is on its way."""
        with self._changed:
            self._arriving[holder] = (tenant, self._clock())

    def has_many_slow(self, tenant: str) -> bool:
        """Whether a tenant has as many slow inputs as it may have."""
        with self._changed:
            arriving = [whose for whose, since in self._arriving.values() if self._is_slow(since)]
            return [*arriving, *self._aside.values()].count(tenant) >= self._of_tenant

    def arrived(self, holder: Hashable) -> None:
        """Its input is there: one that stepped aside waits for a place."""
        with self._changed:
            self._arriving.pop(holder, None)
            if holder in self._aside:
                self._changed.wait_for(lambda: self._free > 0)
                self._free -= 1
                del self._aside[holder]

    def leave(self, holder: Hashable) -> None:
        """Its place is free; or it stood aside, and its input never came."""
        with self._changed:
            self._arriving.pop(holder, None)
            if self._aside.pop(holder, None) is None:
                self._free += 1
            self._changed.notify_all()

    def _is_slow(self, since: float) -> bool:
        return self._clock() - since > self._patience_s

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
