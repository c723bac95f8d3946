"""Runs the ledger's calls on a connection, synchronous or asynchronous.

Scripts are sent by hash and loaded when the server does not know them. Redis faults become
`errors.StoreUnavailableError`.
"""

from pathlib import Path
from typing import Any, TypeVar

import redis
import redis.asyncio

from storage import keys
from storage.contracts import errors
from storage.ledger.calls import Call

T = TypeVar("T")

_FOLDER = Path(__file__).parent


def _sources() -> dict[str, str]:
    shared = keys.prelude() + (_FOLDER / "_shared.lua").read_text()
    return {file.stem: shared + file.read_text() for file in sorted(_FOLDER.glob("[a-z]*.lua"))}


def unavailable(exc: redis.RedisError) -> errors.StoreUnavailableError:
    """What a Redis fault is called from here on."""
    return errors.StoreUnavailableError(f"The store does not answer ({type(exc).__name__})", retry_after=2.0)


class RedisLedger:
    """Executes calls for a worker."""

    def __init__(self, connection: redis.Redis) -> None:
        self._scripts: dict[str, Any] = {name: connection.register_script(text) for name, text in _sources().items()}

    def run(self, call: Call[T]) -> T:
        """Execute and wait. Raises `errors.StoreUnavailableError` and what the call's decoding raises."""
        try:
            reply = self._scripts[call.script](args=call.arguments)
        except redis.RedisError as exc:
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
        except redis.RedisError as exc:
            raise unavailable(exc) from exc
        return call.decode(reply)
