"""Calls webhooks, in the words of the dialect that asked for them.

What is due lies in the ledger, so that no process's death loses it; several processes share the work. A call that is not
answered with success is repeated with growing pauses, for about a day.
"""

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from api.dialects import Dialect
from api.resources import Resources
from storage import connections
from storage.contracts import errors
from storage.ledger import webhooks
from storage.outside import Outside, RefusedError, TooLongError, UnansweredError

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
AT_ONCE = 32
OF_A_TENANT = 8
"""Webhooks called at the same time, and of one tenant."""
HELD_S = 60
"""How long nobody else calls what is being called, beyond the time that the call itself may take."""
GOODBYE_S = 5
PAUSES_S = (5, 10, 60, 300, 1800, 7200, 21_600, 43_200)
"""Between the tries of one webhook."""


class Courier:
    """Calls what is due."""

    def __init__(self, held: Resources, dialects: Mapping[str, Dialect]) -> None:
        self._held = held
        self._dialects = dialects
        settings = held.settings
        self._outside = Outside(limit_s=settings.callback_limit_s, allowed=settings.fetch_allowed)
        # Threads of its own: somebody's slow server must not hold up what else runs in threads.
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="courier")
        self._calling: dict[asyncio.Task[None], str] = {}

    async def run(self) -> None:
        """Look for what is due until cancelled."""
        try:
            while not connections.is_cancelled():
                await self._look()
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            # What is not answered soon is called again by whoever is there when it is held no more.
            if self._calling:
                await asyncio.wait(self._calling, timeout=GOODBYE_S)
            for task in self._calling:
                task.cancel()
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._outside.close()

    async def _look(self) -> None:
        free = AT_ONCE - len(self._calling)
        if not free:
            return
        held_ms = round((HELD_S + self._held.settings.callback_limit_s) * 1000)
        calling = list(self._calling.values())
        wanted = webhooks.callbacks(held_ms=held_ms, limit=free, most_of_a_tenant=OF_A_TENANT, calling=calling)
        try:
            due = await self._held.ledger.run(wanted)
        except errors.TransientError as exc:
            log.warning("webhooks wait: %s", exc)
            return
        except Exception:
            log.exception("webhooks cannot be looked for")
            return
        for one in due:
            task = asyncio.create_task(self._call(one))
            self._calling[task] = one.tenant
            task.add_done_callback(self._calling.pop)

    async def _call(self, due: webhooks.DueCallback) -> None:
        try:
            outcome, ended = await self._called(due)
        except Exception:
            # Nothing about one webhook may keep the others from being called.
            log.exception("%s: the webhook could not be worded", due.id)
            outcome, ended = "it could not be worded", False
        pause_s = PAUSES_S[due.tries] if due.tries < len(PAUSES_S) and not ended else None
        log.info("%s: webhook for %s, try %d: %s", due.id, due.moment, due.tries + 1, outcome)
        again_ms = None if pause_s is None else pause_s * 1000
        try:
            await self._held.ledger.run(webhooks.called(due, again_ms=again_ms, outcome=outcome))
        except errors.TransientError as exc:
            log.warning("%s: the webhook's outcome is not noted, it will be called again: %s", due.id, exc)

    async def _called(self, due: webhooks.DueCallback) -> tuple[str, bool]:
        """What came of it, and whether that is the end."""
        found = due.generation
        callback = found.callback
        dialect = self._dialects.get(callback.dialect) if callback else None
        if callback is None or dialect is None or dialect.notice is None:
            return "nobody can word it", True
        notice = await dialect.notice(self._held, found, due.moment)
        headers = {"Content-Type": "application/json", **notice.headers}
        post = partial(
            self._outside.exchange, "POST", callback.url, headers=headers, content=notice.body, max_bytes=65536
        )
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, post)
        except RefusedError:
            # Another try would find the same address.
            return "the address may not be called", True
        except UnansweredError as exc:
            return str(exc), False
        except TooLongError:
            return "answered 200, at length", True
        return f"answered {answer.status}", 200 <= answer.status < 300
