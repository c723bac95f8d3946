"""Everything a running API holds open, opened and closed in one place."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import redis.asyncio

from api.auth import Tenants
from api.broadcast import BLOCK_MS, Hub
from api.budgets import Budgets
from api.doorbell import Doorbell
from api.forecasts import Forecasts
from api.settings import ApiSettings
from api.signatures import Signatures, signatures_of
from api.streams import Streams
from api.submission import Submission
from storage import connections, provenance, queues
from storage.contracts import catalog, errors
from storage.events import EventLog
from storage.ledger import records
from storage.ledger.execution import FAULTS, AsyncRedisLedger, unavailable
from storage.objects import Objects

T = TypeVar("T")


class ThreadedObjects:
    """The object store for coroutines: boto3 blocks, so it runs in a bounded pool of threads."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="objects")

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store. Raises `errors.ObjectsUnavailableError`."""
        await self._run(functools.partial(self._objects.put, key, body, content_type))

    async def copy(self, source: str, key: str) -> None:
        """Store again under another key. Raises `errors.ObjectsUnavailableError` and `errors.NotFoundError`."""
        await self._run(functools.partial(self._objects.copy, source, key))

    async def get(self, key: str) -> bytes:
        """Fetch. Raises `errors.ObjectsUnavailableError`."""
        return await self._run(functools.partial(self._objects.get, key))

    async def delete_prefix(self, prefix: str) -> None:
        """Remove everything below a prefix. Raises `errors.ObjectsUnavailableError`."""
        await self._run(functools.partial(self._objects.delete_prefix, prefix))

    async def check(self) -> None:
        """Is the bucket there? Raises `errors.ObjectsUnavailableError`."""
        await self._run(self._objects.check)

    def signed_url(self, key: str, expires_at: datetime) -> str:
        """A URL that downloads the object until `expires_at`. No round trip."""
        return self._objects.signed_url(key, expires_at)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What routes use."""

    settings: ApiSettings
    catalog: catalog.Catalog
    tenants: Tenants
    ledger: AsyncRedisLedger
    event_log: EventLog
    hub: Hub
    objects: ThreadedObjects
    submission: Submission
    connection: redis.asyncio.Redis
    signer: provenance.Signer | None
    signatures: Signatures
    streams: Streams
    forecasts: Forecasts
    budgets: Budgets
    ring: Callable[[str], None]

    async def credentials(self, data: bytes, content_type: str) -> provenance.Credentials | None:
        """A picture's content credentials, read in a thread. Raises `errors.NotFoundError` when nothing is signed here."""
        if self.signer is None:
            raise errors.NotFoundError("This service signs nothing: no certificate is configured")
        return await asyncio.to_thread(self.signer.read, data, content_type)

    async def check(self) -> None:
        """Do the stores answer? Raises `errors.TransientError`."""
        try:
            await self.connection.ping()
        except FAULTS as exc:
            raise unavailable(exc) from exc
        await self.objects.check()


@contextlib.asynccontextmanager
async def open_resources(settings: ApiSettings) -> AsyncIterator[Resources]:
    """Open everything; close it in reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        connection = connections.connect_async(settings)
        stack.push_async_callback(connection.aclose)
        signatures = signatures_of(settings)
        follower = connections.connect_async(settings, timeout_s=BLOCK_MS / 1000 + settings.redis_timeout_s)
        stack.push_async_callback(follower.aclose)
        objects = ThreadedObjects(Objects(settings))
        stack.callback(objects.close)
        known = settings.read_catalog()
        budgets = Budgets(settings.budgets, known)
        doorbell = Doorbell(queues.celery_app(settings, queues.queues_of_catalog(known)))
        stack.callback(doorbell.close)
        ledger = AsyncRedisLedger(connection)
        event_log = EventLog(connection, follower)
        hub = Hub(event_log)
        following = asyncio.create_task(hub.run())
        stack.push_async_callback(_ended, following)
        stack.callback(hub.close)
        yield Resources(
            settings=settings,
            catalog=known,
            tenants=Tenants(settings.tenants_by_key()),
            ledger=ledger,
            event_log=event_log,
            hub=hub,
            objects=objects,
            submission=Submission(
                ledger=ledger,
                objects=objects,
                ring=doorbell.ring,
                limits=_limits(settings),
                own_key=signatures.own_key,
                budgets=budgets,
            ),
            connection=connection,
            signer=provenance.signer_of(settings),
            signatures=signatures,
            forecasts=Forecasts(ledger, known),
            budgets=budgets,
            streams=Streams(settings.max_streams_per_tenant),
            ring=doorbell.ring,
        )


def _limits(settings: ApiSettings) -> records.Limits:
    return records.Limits(
        max_active=settings.max_active_per_tenant,
        max_queued=settings.max_queued,
        queue_ttl_s=settings.queue_ttl_s,
        execution_limit_s=settings.execution_limit_s,
    )


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, errors.DarkroomError):
        await task
