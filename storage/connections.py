"""Opens Redis connections, synchronous for workers and asynchronous for the API, with the time-outs each needs.

Every option prevents an accident: without `socket_timeout` a connection that died silently blocks its caller for ever;
without a bounded, blocking pool the 101st concurrent command of a process raises instead of waiting; retries are off
but for one at once, on a new connection, when the old one turns out to have been closed; the ledger's scripts may be repeated.
"""

import asyncio
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from storage.settings import StoreSettings

MOST_CONNECTIONS = 64
"""Of a pool that makes others wait."""

MOST_BY_SENTINEL = 1024
"""Of a pool that asks Sentinels: redis-py has none of these that makes others wait."""


class _Connection(redis.sentinel.SentinelManagedConnection):
    """One that ends when a reply does not come in time, or the reply to come would be taken for the next command's.

    redis-py's ends by itself, but not where Sentinels name the server.
    """

    def read_response(self, *arguments: Any, **named: Any) -> Any:
        return super().read_response(*arguments, **{**named, "disconnect_on_error": True})


class _TlsConnection(_Connection, redis.sentinel.SentinelManagedSSLConnection):
    """The same with TLS."""


class _Pool(redis.sentinel.SentinelConnectionPool):
    """Connections to the primary; with them those to the Sentinels end."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        for one in self.sentinel_manager.sentinels:
            one.connection_pool.disconnect(inuse_connections)


class _AsyncPool(redis.asyncio.sentinel.SentinelConnectionPool):
    """The same for coroutines."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        for one in self.sentinel_manager.sentinels:
            await one.connection_pool.disconnect(inuse_connections)


# redis-py has no types for these.
_by_sentinel: Any = redis.sentinel.Sentinel
_by_sentinel_async: Any = redis.asyncio.sentinel.Sentinel
_async_plain: Any = redis.asyncio.sentinel.SentinelManagedConnection
_async_tls: Any = redis.asyncio.sentinel.SentinelManagedSSLConnection
_pool: Any = _Pool
_async_pool: Any = _AsyncPool


def connect(settings: StoreSettings) -> redis.Redis:
    """A synchronous client."""
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    options = {"retry": retry, **_options(settings, settings.redis_timeout_s)}
    sentinels = settings.sentinels
    if sentinels is None:
        url = settings.redis_address
        pool = redis.BlockingConnectionPool.from_url(
            url, max_connections=MOST_CONNECTIONS, timeout=settings.redis_timeout_s, **options
        )
        return redis.Redis.from_pool(pool)
    of_sentinels = {**_options(settings, settings.redis_timeout_s), **sentinels.of_sentinels}
    known = _by_sentinel(sentinels.addresses, sentinel_kwargs=of_sentinels)
    kind = _TlsConnection if sentinels.has_tls else _Connection
    named = {"max_connections": MOST_BY_SENTINEL, **options, **sentinels.of_servers, "connection_class": kind}
    return redis.Redis.from_pool(_pool(sentinels.primary, known, **named))


def connect_async(settings: StoreSettings, *, timeout_s: float | None = None) -> redis.asyncio.Redis:
    """An asynchronous client. `timeout_s` replaces the settings' time-out, for readers that block on purpose."""
    retry = AsyncRetry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    options = {"retry": retry, **_options(settings, timeout_s or settings.redis_timeout_s)}
    sentinels = settings.sentinels
    if sentinels is None:
        url = settings.redis_address
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url, max_connections=MOST_CONNECTIONS, timeout=settings.redis_timeout_s, **options
        )
        return redis.asyncio.Redis.from_pool(pool)
    of_sentinels = {**_options(settings, settings.redis_timeout_s), **sentinels.of_sentinels}
    known = _by_sentinel_async(sentinels.addresses, sentinel_kwargs=of_sentinels)
    kind = _async_tls if sentinels.has_tls else _async_plain
    named = {"max_connections": MOST_BY_SENTINEL, **options, **sentinels.of_servers, "connection_class": kind}
    return redis.asyncio.Redis.from_pool(_async_pool(sentinels.primary, known, **named))


def is_cancelled() -> bool:
    """Whether the task that runs was cancelled. redis-py loses what arrives while it connects; the task remembers."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _options(settings: StoreSettings, timeout_s: float) -> dict[str, Any]:
    tls: dict[str, Any] = {"ssl_cert_reqs": "required", "ssl_check_hostname": True} if settings.has_redis_tls else {}
    if tls and settings.store_authority is not None:
        tls["ssl_ca_certs"] = str(settings.store_authority)
    return {
        **tls,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "decode_responses": True,
    }
