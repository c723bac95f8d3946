"""Everything a running API holds open, opened and closed in one place."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass

import redis.asyncio

from api.metrics import ApiMetrics
from api.service.archive import Archive
from api.service.batch_runner import BatchRunner
from api.service.batches import Batches
from api.service.budgets import Budgets
from api.service.erasure import Eraser
from api.service.forecast import Forecasts
from api.service.kept import Kept
from api.service.keys import Keys
from api.service.objects import AsyncObjects
from api.service.pacing import Pacing, RequestPace
from api.service.read import Reader
from api.service.retention import Retention
from api.service.route import Router
from api.service.signing import Signatures, signatures_of
from api.service.streams import OpenStreams
from api.service.submit import Submitter
from api.service.tickets import TicketSender
from api.service.tokens import Tokens
from api.service.turns import Turns
from api.service.wait import Waiter
from api.service.warming import Warming
from api.service.watch import BLOCK_MS, Hub
from api.service.webhook_secrets import WebhookSecrets
from api.settings import ApiSettings
from api.webhooks.calls import Calls
from api.webhooks.pings import AT_ONCE as PINGS_AT_ONCE
from api.webhooks.pings import Pings
from storage import connections, provenance, queues
from storage.contracts import catalog, errors
from storage.events import EventLog
from storage.gate import Gate
from storage.ledger import records
from storage.ledger.execution import FAULTS, AsyncRedisLedger, Replicas, unavailable
from storage.metrics import served
from storage.objects import Objects

READY_S = 3.0
"""How long the object store may take when it is asked whether it is there."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What routes use."""

    settings: ApiSettings
    catalog: catalog.Catalog
    keys: Keys
    ledger: AsyncRedisLedger
    archive: Archive
    event_log: EventLog
    hub: Hub
    objects: AsyncObjects
    submitter: Submitter
    pacing: Pacing
    request_pace: RequestPace
    reader: Reader
    waiter: Waiter
    warming: Warming
    connection: redis.asyncio.Redis
    signer: provenance.Signer | None
    signatures: Signatures
    streams: OpenStreams
    turns: Turns
    forecasts: Forecasts
    budgets: Budgets
    eraser: Eraser
    batches: Batches
    batch_runner: BatchRunner
    tokens: Tokens
    webhook_secrets: WebhookSecrets
    webhook_calls: Calls
    pings: Pings
    health: Kept[None]
    """Read where anybody may ask, so not for each who does."""

    async def credentials(self, data: bytes, content_type: str) -> provenance.Credentials | None:
        """A picture's content credentials, read in a thread. Raises `errors.NotFoundError` when nothing is signed here."""
        if self.signer is None:
            raise errors.NotFoundError("This service signs nothing: no certificate is configured")
        return await asyncio.to_thread(self.signer.read, data, content_type)

    async def check(self) -> None:
        """Did the stores answer a moment ago? Raises `errors.TransientError`."""
        await self.health.get()


@contextlib.asynccontextmanager
async def open_resources(settings: ApiSettings, metrics: ApiMetrics) -> AsyncIterator[Resources]:
    """Open everything; close it in reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(served(metrics.registry, settings))
        connection = connections.connect_async(settings)
        stack.push_async_callback(connection.aclose)
        follower = connections.connect_async(settings, timeout_s=BLOCK_MS / 1000 + settings.redis_timeout_s)
        stack.push_async_callback(follower.aclose)
        objects = AsyncObjects(Objects(settings, observe=metrics.object_store))
        stack.callback(objects.close)
        known = settings.read_catalog()
        tickets = TicketSender(queues.celery_app(settings, known.queues))
        stack.callback(tickets.close)
        ledger = AsyncRedisLedger(connection, Replicas.of(settings))
        event_log = EventLog(connection, follower, confirm=ledger.confirm, replicas=settings.wait_replicas)
        hub = Hub(event_log, told=metrics.told)
        following = asyncio.create_task(hub.run())
        stack.push_async_callback(_ended, following)
        stack.callback(hub.close)
        archive = Archive(ledger, objects, max_bytes=settings.max_bytes_per_tenant)
        signatures = signatures_of(settings)
        keys = Keys(
            settings.tenants_by_key(),
            ledger,
            naming=signatures.key("key names") if signatures.is_shared else None,
            unfiltered=settings.unfiltered_tenants,
        )
        budgets = Budgets(settings.budgets, known)
        forecasts = Forecasts(ledger, known)
        webhook_calls = Calls(limit_s=settings.callback_limit_s, allowed=settings.fetch_allowed, called=metrics.called)
        stack.callback(webhook_calls.close)
        ping_calls = Calls(limit_s=settings.callback_limit_s, allowed=settings.fetch_allowed, at_once=PINGS_AT_ONCE)
        stack.callback(ping_calls.close)
        reader = Reader(
            ledger=ledger,
            archive=archive,
            known=known,
            objects=objects,
            signatures=signatures,
            confirm=ledger.confirm,
        )
        pacing = Pacing(ledger)
        refuses_webhook = Gate(settings.fetch_allowed).refuses
        submitter = Submitter(
            known=known,
            ledger=ledger,
            archive=archive,
            objects=objects,
            router=Router(known, forecasts),
            send_ticket=tickets.send,
            limits=_limits(settings),
            own_key=signatures.own_key,
            refuses=Gate(settings.fetchable).refuses,
            refuses_webhook=refuses_webhook,
            budgets=budgets,
            retention=Retention(settings.retention_days),
            pacing=pacing,
        )
        turns = Turns()
        kept_batches = Batches(ledger, objects, refuses_webhook)
        yield Resources(
            settings=settings,
            catalog=known,
            keys=keys,
            ledger=ledger,
            archive=archive,
            event_log=event_log,
            hub=hub,
            objects=objects,
            submitter=submitter,
            pacing=pacing,
            request_pace=RequestPace(settings.requests_per_minute),
            reader=reader,
            waiter=Waiter(hub=hub, archive=archive, reader=reader, limit_s=settings.blocking_limit_s),
            warming=Warming(ledger, settings.blocking_limit_s),
            connection=connection,
            signer=provenance.signer_of(settings),
            signatures=signatures,
            forecasts=forecasts,
            budgets=budgets,
            eraser=Eraser(ledger, archive, kept_batches, objects),
            batches=kept_batches,
            batch_runner=BatchRunner(
                ledger=ledger,
                objects=objects,
                submitter=submitter,
                archive=archive,
                reader=reader,
                keys=keys,
                turns=turns,
                max_active=settings.max_active_per_tenant,
            ),
            webhook_secrets=WebhookSecrets(signatures, ledger),
            webhook_calls=webhook_calls,
            pings=Pings(ping_calls),
            # Not a stale answer: balancers take it for what is so now.
            health=Kept(functools.partial(_stores_answer, connection, ledger, objects), fresh_s=0.5, stale_s=0.5),
            tokens=Tokens(signatures.key("browser token"), keys, ledger),
            turns=turns,
            streams=OpenStreams(settings.max_streams_per_tenant, settings.max_streams, gauge=metrics.streams),
        )


def _limits(settings: ApiSettings) -> records.Limits:
    return records.Limits(
        max_active=settings.max_active_per_tenant,
        max_queued=settings.max_queued,
        max_bytes=settings.max_bytes_per_tenant,
        queue_ttl_s=settings.queue_ttl_s,
        execution_limit_s=settings.execution_limit_s,
    )


async def _stores_answer(connection: redis.asyncio.Redis, ledger: AsyncRedisLedger, objects: AsyncObjects) -> None:
    try:
        await connection.ping()
    except FAULTS as exc:
        raise unavailable(exc) from exc
    await ledger.confirm()
    try:
        # Whoever asks is not to wait for its retries.
        async with asyncio.timeout(READY_S):
            await objects.check()
    except TimeoutError:
        raise errors.ObjectsUnavailableError(f"The object store does not answer within {READY_S:g} s") from None


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, errors.DarkroomError):
        await task
