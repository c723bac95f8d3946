"""Calls webhooks, in the words of the dialect that asked for them.

What is due lies in the ledger, so that no process's death loses it; several processes share the work. A call that is not
answered with success is repeated with growing pauses, for about a day.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from api.service.read import Reader, ResultView
from storage import connections
from storage.contracts import errors, submissions
from storage.ledger import call, webhooks
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


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a webhook is sent: a JSON body and headers."""

    body: bytes
    headers: Mapping[str, str]


Wording = Callable[[Reader, ResultView, submissions.Moment], Awaitable[Message]]
"""Words a webhook in a dialect, for the first of a request's generations."""


class Delivery:
    """Calls what is due."""

    def __init__(
        self,
        ledger: call.AsyncLedger,
        reader: Reader,
        wordings: Mapping[str, Wording],
        *,
        limit_s: float,
        allowed: tuple[str, ...] = (),
    ) -> None:
        """`wordings` by dialect; `limit_s` is how long an answer may take, `allowed` names internal hosts that may be called."""
        self._ledger = ledger
        self._reader = reader
        self._wordings = wordings
        self._limit_s = limit_s
        self._outside = Outside(limit_s=limit_s, allowed=allowed)
        # Threads of its own: somebody's slow server must not hold up what else runs in threads.
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhooks")
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
        held_ms = round((HELD_S + self._limit_s) * 1000)
        calling = list(self._calling.values())
        look = webhooks.due(held_ms=held_ms, limit=free, most_of_a_tenant=OF_A_TENANT, calling=calling)
        try:
            due = await self._ledger.run(look)
        except errors.TransientError as exc:
            log.warning("webhooks wait: %s", exc)
            return
        except Exception:
            log.exception("webhooks cannot be looked for")
            return
        for webhook in due:
            task = asyncio.create_task(self._call(webhook))
            self._calling[task] = webhook.tenant
            task.add_done_callback(self._calling.pop)

    async def _call(self, due: webhooks.DueWebhook) -> None:
        began = time.monotonic()
        try:
            outcome, ended = await self._outcome(due)
        except Exception:
            # Nothing about one webhook may keep the others from being called.
            log.exception("%s: the webhook could not be worded", due.id)
            outcome, ended = "it could not be worded", False
        pause_s = PAUSES_S[due.tries] if due.tries < len(PAUSES_S) and not ended else None
        log.info("%s: webhook for %s, try %d: %s", due.id, due.moment, due.tries + 1, outcome)
        again_ms = None if pause_s is None else pause_s * 1000
        took_ms = round((time.monotonic() - began) * 1000)
        try:
            await self._ledger.run(webhooks.called(due, again_ms=again_ms, outcome=outcome, took_ms=took_ms))
        except errors.TransientError as exc:
            log.warning("%s: the webhook's outcome is not noted, it will be called again: %s", due.id, exc)

    async def _outcome(self, due: webhooks.DueWebhook) -> tuple[str, bool]:
        """What came of a call, and whether that is the end."""
        view = self._reader.view(due.generation)
        webhook = view.generation.submission.webhook
        word = self._wordings.get(webhook.dialect) if webhook else None
        if webhook is None or word is None:
            return "nobody can word it", True
        message = await word(self._reader, view, due.moment)
        headers = {"Content-Type": "application/json", **message.headers}
        post = partial(
            self._outside.exchange, "POST", webhook.url, headers=headers, content=message.body, max_bytes=65536
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
