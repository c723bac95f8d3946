"""Calls webhooks, in the words of the dialect that asked for them.

What is due lies in the ledger, so that no process's death loses it; several processes share the work. A call that is not
answered with success is repeated with growing pauses, for about a day.
"""

import asyncio
import logging
from collections.abc import Mapping

from api.dialects import Dialect
from api.resources import Resources
from storage.contracts import errors
from storage.ledger import calls
from storage.outside import Outside, RefusedError, TooLongError, UnansweredError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
HELD_MS = 60_000
PAUSES_S = (5, 10, 60, 300, 1800, 7200, 21_600, 43_200)
"""Between the tries of one webhook."""


class Courier:
    """Calls what is due."""

    def __init__(self, held: Resources, dialects: Mapping[str, Dialect]) -> None:
        self._held = held
        self._dialects = dialects
        settings = held.settings
        self._outside = Outside(limit_s=settings.callback_limit_s, allowed=settings.fetch_allowed)

    async def run(self) -> None:
        """Look for what is due until cancelled."""
        try:
            while True:
                try:
                    due = await self._held.ledger.run(calls.callbacks(held_ms=HELD_MS))
                    await asyncio.gather(*(self._call(one) for one in due))
                except errors.TransientError as exc:
                    log.warning("webhooks wait: %s", exc)
                    due = ()
                if not due:
                    await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self._outside.close()

    async def _call(self, due: calls.DueCallback) -> None:
        found, callback = due.generation, due.generation.callback
        dialect = self._dialects.get(callback.dialect) if callback else None
        if callback is None or dialect is None or dialect.notice is None:
            await self._held.ledger.run(calls.called(due, again_ms=None, outcome="nobody can word it"))
            return
        notice = dialect.notice(self._held, found, due.moment)
        headers = {"Content-Type": "application/json", **notice.headers}
        try:
            answer = await asyncio.to_thread(
                self._outside.exchange, "POST", callback.url, headers=headers, content=notice.body, max_bytes=65536
            )
            outcome, ended = f"answered {answer.status}", 200 <= answer.status < 300
        except RefusedError:
            # Another try would find the same address.
            outcome, ended = "the address may not be called", True
        except (UnansweredError, TooLongError) as exc:
            outcome, ended = str(exc) or "the answer was too long", False
        pause_s = PAUSES_S[due.tries] if due.tries < len(PAUSES_S) and not ended else None
        log.info("%s: webhook for %s, try %d: %s", found.id, due.moment, due.tries + 1, outcome)
        again_ms = None if pause_s is None else pause_s * 1000
        await self._held.ledger.run(calls.called(due, again_ms=again_ms, outcome=outcome))
