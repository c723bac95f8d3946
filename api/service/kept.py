"""Values that are read now and then, by one reader for all who ask, and used by everybody meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

FRESH_S, STALE_S = 1.0, 2.0
"""Up to the first a value is used as it is; up to the second it is used while another is read."""


class Kept(Generic[T]):
    """One value. However many ask for it, it is read once at a time, and not more often than every `fresh_s` seconds."""

    def __init__(self, read: Callable[[], Awaitable[T]], *, fresh_s: float = FRESH_S, stale_s: float = STALE_S) -> None:
        self._read = read
        self._fresh_s, self._stale_s = fresh_s, stale_s
        self._value: tuple[float, T] | None = None
        self._reading: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The value, at most `stale_s` seconds old. Raises what reading raises."""
        age_s = float("inf") if self._value is None else time.monotonic() - self._value[0]
        if self._value is not None and age_s <= self._fresh_s:
            return self._value[1]
        if self._reading is None:
            self._reading = asyncio.create_task(self._renewed())
            self._reading.add_done_callback(self._over)
        if self._value is not None and age_s <= self._stale_s:
            return self._value[1]
        # A caller that hangs up does not take it away from the others.
        return await asyncio.shield(self._reading)

    async def _renewed(self) -> T:
        value = await self._read()
        self._value = (time.monotonic(), value)
        return value

    def _over(self, reading: asyncio.Task[T]) -> None:
        self._reading = None
        if not reading.cancelled():
            # Told to those who wait for it, if any.
            reading.exception()
