"""Runs the ledger's calls on a connection, synchronous or asynchronous.

Scripts are sent by hash and loaded when the server does not know them. Redis faults become
`errors.StoreUnavailableError`.
"""

import logging
from pathlib import Path
from typing import Any, TypeVar

import redis
import redis.asyncio

from storage import keys
from storage.contracts import errors
from storage.ledger.call import Call

T = TypeVar("T")

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent


_HEAD = "#!lua"


def _sources() -> dict[str, str]:
    """Every script with what it shares.

    A script runs even when the store is full, or finished work could not be published, unless it brings a head of its own.
    """
    shared = keys.prelude() + (_FOLDER / "_shared.lua").read_text()
    sources = {}
    for file in sorted(_FOLDER.glob("*/*.lua")):
        text = file.read_text()
        head = f"{_HEAD}\n" if text.startswith(_HEAD) else f"{_HEAD} flags=allow-oom\n"
        sources[file.stem] = head + shared + text.removeprefix(f"{_HEAD}\n")
    return sources


FAULTS = (redis.RedisError, OSError, RuntimeError)
"""What a broken connection raises: uvloop has a `RuntimeError` of its own for writing to a closed one."""


def unavailable(exc: Exception) -> errors.TransientError:
    """What a Redis fault is called from here on."""
    if isinstance(exc, redis.exceptions.OutOfMemoryError):
        return errors.StoreFullError("The store is full", retry_after=10.0)
    if isinstance(exc, redis.ResponseError):
        log.error("the store refused a command: %s", exc)
    return errors.StoreUnavailableError(f"The store does not answer ({type(exc).__name__})", retry_after=2.0)


class RedisLedger:
    """Executes calls for a worker."""

    def __init__(self, connection: redis.Redis) -> None:
        self._scripts: dict[str, Any] = {name: connection.register_script(text) for name, text in _sources().items()}

    def run(self, call: Call[T]) -> T:
        """Execute and wait. Raises `errors.StoreUnavailableError` and what the call's decoding raises."""
        try:
            reply = self._scripts[call.script](args=call.arguments)
        except FAULTS as exc:
            raise unavailable(exc) from exc
        return call.decode(reply)


class AsyncRedisLedger:
    """Executes calls for the API."""

    def __init__(self, connection: redis.asyncio.Redis) -> None:
        self._scripts: dict[str, Any] = {name: connection.register_script(text) for name, text in _sources().items()}

    async def run(self, call: Call[T]) -> T:
        """Execute and wait. Raises `errors.StoreUnavailableError` and what the call's decoding raises."""
        try:
            reply = await self._scripts[call.script](args=call.arguments)
        except FAULTS as exc:
            raise unavailable(exc) from exc
        return call.decode(reply)
