"""Calls webhooks, in the words of the dialect that asked for them.

What is due lies in the ledger, so that no process's death loses it; several processes share the work. A call that is not
answered with success is repeated with growing pauses, for about a day.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from opentelemetry.trace import SpanKind

from api.service.archive import Archive
from api.service.read import Reader, ResultView
from api.service.webhook_secrets import WebhookSecrets
from api.webhooks.calls import AT_ONCE, Calls, Outcome
from api.webhooks.circuits import Circuits, Destination, destination_of
from storage import connections, traces
from storage.contracts import batches, errors, submissions
from storage.ledger import call, webhooks

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
SHARE = webhooks.Share(most=8, few=2, busy=AT_ONCE // 2)
"""Webhooks of one tenant that are called at the same time. A tenant whose receivers are slow leaves room for the others."""
HELD_S = 60
"""How long nobody else calls what is being called, beyond the time that the call itself may take."""
GOODBYE_S = 5
FETCHED_AGAIN_S = 60.0
PAUSES_S = (5, 10, 60, 300, 1800, 7200, 21_600, 43_200)
"""Between the tries of one webhook."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a webhook is sent: a JSON body and headers."""

    body: bytes
    headers: Mapping[str, str]


Wording = Callable[[Reader, ResultView, submissions.Moment, Sequence[bytes]], Awaitable[Message]]
"""Words a webhook in a dialect, for the first of a request's generations, and signs it with its tenant's keys, the present one
first."""


BatchWording = Callable[[batches.Batch, Callable[[str, datetime], str], Sequence[bytes]], Awaitable[Message]]
"""The same for a batch, with what signs URLs of objects."""


class Delivery:
    """Calls what is due."""

    def __init__(
        self,
        ledger: call.AsyncLedger,
        archive: Archive,
        reader: Reader,
        wordings: Mapping[str, Wording],
        batch_wordings: Mapping[str, BatchWording],
        *,
        secrets: WebhookSecrets,
        calls: Calls,
    ) -> None:
        """Wordings by dialect."""
        self._ledger = ledger
        self._archive = archive
        self._reader = reader
        self._wordings = wordings
        self._batch_wordings = batch_wordings
        self._secrets = secrets
        self._calls = calls
        self._circuits = Circuits()
        self._calling: dict[asyncio.Task[None], str] = {}

    async def run(self) -> None:
        """Look for what is due until cancelled."""
        try:
            while not connections.is_cancelled():
                while await self._look():
                    pass
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            # What is not answered soon is called again by any process once its hold has run out.
            if self._calling:
                await asyncio.wait(self._calling, timeout=GOODBYE_S)
            for task in self._calling:
                task.cancel()

    async def _look(self) -> bool:
        """Begin to call what is due; whether there may be more behind what was put off."""
        free = AT_ONCE - len(self._calling)
        if not free:
            return False
        held_ms = round((HELD_S + self._calls.limit_s) * 1000)
        calling = list(self._calling.values())
        look = webhooks.due(held_ms=held_ms, limit=free, share=SHARE, calling=calling)
        try:
            due = await self._ledger.run(look)
            for webhook in due:
                if not webhook.is_here:
                    await self._fetch(webhook)
            waiting = [one for one in due if one.is_here and not self._began(one)]
            for webhook in waiting:
                rest_s = self._circuits.rest_s(_destination(webhook), time.monotonic())
                await self._ledger.run(webhooks.put_off(webhook, by_s=max(1.0, min(rest_s, webhook.longest_rest_s))))
        except errors.TransientError as exc:
            log.warning("webhooks wait: %s", exc)
            return False
        except Exception:
            log.exception("webhooks cannot be looked for")
            return False
        return bool(waiting)

    async def _fetch(self, due: webhooks.DueWebhook) -> None:
        """Have the record of one that was archived brought back, so that it is due again; one that is gone is done with."""
        try:
            is_back = await self._archive.restore(due.id, due.tenant)
        except errors.TransientError as exc:
            log.warning("%s: its webhook waits: %s", due.id, exc)
            await self._ledger.run(webhooks.put_off(due, by_s=FETCHED_AGAIN_S))
            return
        if is_back:
            await self._ledger.run(webhooks.put_off(due, by_s=0))
        else:
            await self._ledger.run(webhooks.called(due, again_ms=None, outcome="it is gone", took_ms=0))

    def _began(self, due: webhooks.DueWebhook) -> bool:
        """Whether it is being called now: it is not while its receiver rests."""
        destination = _destination(due)
        if self._circuits.rest_s(destination, time.monotonic()):
            return False
        self._circuits.begin(destination)
        task = asyncio.create_task(self._call(due, destination))
        self._calling[task] = due.tenant
        task.add_done_callback(self._calling.pop)
        return True

    async def _call(self, due: webhooks.DueWebhook, destination: Destination) -> None:
        outcome = Outcome(text="it could not be worded")
        try:
            outcome = await self._outcome(due)
        except Exception:
            # Nothing about one webhook may keep the others from being called.
            log.exception("%s: the webhook could not be worded", due.id)
        finally:
            self._circuits.end(destination, answered=outcome.answered, now=time.monotonic())
        pause_s = PAUSES_S[due.tries] if due.tries < len(PAUSES_S) and not outcome.is_final else None
        log.info("%s: webhook for %s, try %d: %s", due.id, due.moment, due.tries + 1, outcome.text)
        again_ms = None if pause_s is None else round(min(pause_s, due.longest_rest_s) * 1000)
        noted = webhooks.called(due, again_ms=again_ms, outcome=outcome.text, took_ms=outcome.took_ms)
        try:
            await self._ledger.run(noted)
        except errors.TransientError as exc:
            log.warning("%s: the webhook's outcome is not noted, it will be called again: %s", due.id, exc)

    async def _outcome(self, due: webhooks.DueWebhook) -> Outcome:
        webhook = due.webhook
        message = await self._message(due, webhook.dialect) if webhook else None
        if webhook is None or message is None:
            return Outcome(text="nobody can word it", is_final=True)
        span = traces.begin("webhook", "" if due.moment == "batch" else due.generation.trace, kind=SpanKind.CLIENT)
        try:
            with traces.within(span):
                outcome = await self._calls.post(webhook.url, message.body, {**message.headers, **traces.headers()})
            if outcome.status is not None:
                span.set_attribute("http.response.status_code", outcome.status)
            if not outcome.answered:
                traces.fail(span, "unanswered")
        finally:
            span.end()
        return outcome

    async def _message(self, due: webhooks.DueWebhook, dialect: str) -> Message | None:
        keys = [secret.key for secret in await self._secrets.of(due.tenant)]
        if due.moment == "batch":
            word_batch = self._batch_wordings.get(dialect)
            return await word_batch(due.batch, self._reader.sign, keys) if word_batch else None
        word = self._wordings.get(dialect)
        return await word(self._reader, self._reader.view(due.generation), due.moment, keys) if word else None


def _destination(due: webhooks.DueWebhook) -> Destination:
    try:
        webhook = due.webhook
        return destination_of(due.tenant, webhook.url if webhook else "")
    except (ValueError, KeyError):
        return due.tenant, ""  # a record that cannot be read, or a URL that is none: said when it is called
