"""Opens Redis connections, synchronous for workers and asynchronous for the API, with the time-outs each needs.

Every option prevents an accident: without `socket_timeout` a connection that died silently blocks its caller for ever;
without a bounded, blocking pool the 101st concurrent command of a process raises instead of waiting; retries are off
but for one at once, on a new connection, when the old one turns out to have been closed; the ledger's scripts bear it.
"""

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from storage.settings import StoreSettings


def connect(settings: StoreSettings, *, timeout_s: float | None = None) -> redis.Redis:
    """A synchronous client. `timeout_s` replaces the settings' time-out, for readers that block on purpose."""
    pool = redis.BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=32,
        timeout=settings.redis_timeout_s,
        socket_timeout=timeout_s or settings.redis_timeout_s,
        socket_connect_timeout=settings.redis_timeout_s,
        socket_keepalive=True,
        health_check_interval=5,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        decode_responses=True,
    )
    return redis.Redis.from_pool(pool)


def connect_async(settings: StoreSettings, *, timeout_s: float | None = None) -> redis.asyncio.Redis:
    """The asynchronous twin."""
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=64,
        timeout=settings.redis_timeout_s,
        socket_timeout=timeout_s or settings.redis_timeout_s,
        socket_connect_timeout=settings.redis_timeout_s,
        socket_keepalive=True,
        health_check_interval=5,
        retry=AsyncRetry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        decode_responses=True,
    )
    return redis.asyncio.Redis.from_pool(pool)
