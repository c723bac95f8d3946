"""A batch that this process works on, held on for as long as that takes."""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator

from storage.contracts import batches, errors
from storage.ledger import batches as ledger_batches
from storage.ledger import call

log = logging.getLogger(__name__)

HOLD_S = 10.0
"""How long a batch is a process's unless it says so again; should that die, another goes on. What both do then is done once."""

RENEW_S = HOLD_S / 4


class Holding:
    """A batch that nobody else works on, or that somebody else took."""

    def __init__(self, ledger: call.AsyncLedger, taken: ledger_batches.Held) -> None:
        self._ledger = ledger
        # Its phase is the one that is worked on, whatever is asked for meanwhile.
        self._held: ledger_batches.Held | None = taken
        self._last = taken
        self._cursor = taken.batch.cursor
        self._lock = asyncio.Lock()

    async def step(
        self, *, cursor: int, becomes: batches.Phase | None = None, wait_s: float | None = 0
    ) -> batches.Batch | None:
        """As `ledger.batches.step`; it is held on with `wait_s` None. None: it is held no more."""
        async with self._lock:
            self._cursor = cursor
            hold_s = HOLD_S if wait_s is None else None
            return await self._step(cursor, becomes=becomes, hold_s=hold_s, wait_s=wait_s or 0)

    async def finish(self, batch: batches.Batch) -> bool:
        """As `ledger.batches.finish`, with the counts that the manifest tells."""
        async with self._lock:
            self._held = None
            # Told of even where it is held no more: what was written may be older than what somebody else wrote.
            return await self._ledger.run(ledger_batches.finish(dataclasses.replace(self._last, batch=batch)))

    async def renew(self) -> None:
        """Hold it on, from time to time, until cancelled or it is held no more."""
        while self._held is not None:
            await asyncio.sleep(RENEW_S)
            try:
                async with self._lock:
                    await self._step(self._cursor, hold_s=HOLD_S)
            except errors.TransientError as exc:
                log.warning("a batch is not held on: %s", exc)
            except Exception:
                # Whatever is wrong: what is done with it meanwhile is done once.
                log.exception("a batch is not held on")

    async def _step(
        self, cursor: int, *, becomes: batches.Phase | None = None, hold_s: float | None, wait_s: float = 0
    ) -> batches.Batch | None:
        if self._held is None:
            return None
        step = ledger_batches.step(self._held, cursor=cursor, becomes=becomes, hold_s=hold_s, wait_s=wait_s)
        now = await self._ledger.run(step)
        is_held = now is not None and hold_s is not None
        self._held = dataclasses.replace(self._held, until=now.until) if now is not None and is_held else None
        self._last = self._held or self._last
        return now.batch if now else None


@contextlib.asynccontextmanager
async def holding(ledger: call.AsyncLedger, taken: ledger_batches.Held) -> AsyncIterator[Holding]:
    """Hold a batch on while the block runs, however slowly its lines are submitted or its manifest is written."""
    one = Holding(ledger, taken)
    renewing = asyncio.create_task(one.renew())
    try:
        yield one
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
