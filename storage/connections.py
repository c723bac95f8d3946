"""Opens Redis connections, synchronous for workers and asynchronous for the API, with the time-outs each needs.

Every option prevents an accident: without `socket_timeout` a connection that died silently blocks its caller for ever;
without a bounded, blocking pool the 101st concurrent command of a process raises instead of waiting; retries are off
but for one at once, on a new connection, when the old one turns out to have been closed; the ledger's scripts may be repeated.
"""

import asyncio
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from storage.settings import StoreSettings


def connect(settings: StoreSettings) -> redis.Redis:
    """A synchronous client."""
    retry = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return redis.Redis.from_pool(
        redis.BlockingConnectionPool.from_url(
            settings.redis_url.get_secret_value(), retry=retry, **_options(settings, settings.redis_timeout_s)
        )
    )


def connect_async(settings: StoreSettings, *, timeout_s: float | None = None) -> redis.asyncio.Redis:
    """An asynchronous client. `timeout_s` replaces the settings' time-out, for readers that block on purpose."""
    retry = AsyncRetry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return redis.asyncio.Redis.from_pool(
        redis.asyncio.BlockingConnectionPool.from_url(
            settings.redis_url.get_secret_value(),
            retry=retry,
            **_options(settings, timeout_s or settings.redis_timeout_s),
        )
    )


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
        "max_connections": 64,
        "timeout": settings.redis_timeout_s,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "decode_responses": True,
    }
