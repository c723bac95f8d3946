"""Runs the ledger's calls on a connection, synchronous or asynchronous.

Scripts are sent by hash and loaded when the server does not know them. Redis faults become
`errors.StoreUnavailableError`.
"""

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import redis
import redis.asyncio

from storage import keys
from storage.contracts import errors
from storage.ledger import control
from storage.ledger.call import Call
from storage.settings import StoreSettings

T = TypeVar("T")

Command = tuple[str | int | float, ...]

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


LASTING = frozenset({
    "create", "keep", "cancel", "retry", "unpark", "erase", "claim", "finish", "fail", "release", "due", "redeliver", "lapsed",
    "restore", "webhook_secrets", "batch_create", "batch_change", "batch_finish", "key_issue", "key_rotate", "key_revoke",
    "barrier", "pause",
})  # fmt: skip
"""Scripts that somebody is told the outcome of: what they wrote must outlive the primary. A claim must, since a fencing token
that is forgotten would be given out again. What the others write is found again, or does no harm when it is lost."""


@dataclass(frozen=True, kw_only=True)
class Replicas:
    """How many replicas are to have what was written on their disks before it counts, and for how many ms that is waited for."""

    count: int = 0
    wait_ms: int = 1000

    @classmethod
    def of(cls, settings: StoreSettings) -> "Replicas":
        """As they are set; the wait ends before the connection's time-out does."""
        return cls(count=settings.wait_replicas, wait_ms=max(1, int(settings.redis_timeout_s * 1000 * 2 / 3)))

    def awaited_by(self, call: Call[Any]) -> bool:
        """Whether a call waits for them."""
        return self.count > 0 and call.script in LASTING

    @property
    def commands(self) -> Sequence[Command]:
        """What waits, after a write on the same connection; the last reply counts this server and its replicas.

        `WAITAOF` alone takes up to a second: a replica is asked together with the write, answers before that is on its disk, and
        tells by itself only once a second. After `WAIT` it has written it when it is asked again: 1.1 ms instead of 1,002.
        """
        # 0 would be for ever.
        first_ms = max(1, self.wait_ms // 4)
        return ("WAIT", self.count, first_ms), ("WAITAOF", 1, self.count, max(1, self.wait_ms - first_ms))

    def lack(self, replies: Sequence[Any]) -> bool:
        """Whether a server without replicas answered: it may be the primary no more, and is to be looked for anew."""
        *_, last = replies
        too_few = len(replies) > 1 and not isinstance(last, Exception) and last[1] < self.count
        return too_few or any(isinstance(one, Exception) and str(one).startswith("NOREPLICAS") for one in replies)


def _talk(script: Any, call: Call[T], replicas: Replicas) -> Generator[Sequence[Command], Sequence[Any], T]:
    """What is sent for a call, given the replies to what was sent before; returns its outcome."""
    waiting = replicas.commands if replicas.awaited_by(call) else ()
    replies = yield [("EVALSHA", script.sha, 0, *call.arguments), *waiting]
    if isinstance(replies[0], redis.exceptions.NoScriptError):
        replies = yield [("EVAL", script.script, 0, *call.arguments), *waiting]
    for one in replies:
        if isinstance(one, Exception):
            raise unavailable(one) from one
    outcome = call.decode(replies[0])
    if replicas.lack(replies):
        fault = errors.StoreUnavailableError("No replica has written it yet", retry_after=1.0)
        fault.outcome = outcome
        raise fault
    return outcome


class RedisLedger:
    """Executes calls for a worker."""

    def __init__(self, connection: redis.Redis, replicas: Replicas = Replicas()) -> None:
        # redis-py has no types for what a pipeline executes.
        self._connection: Any = connection
        self._replicas = replicas
        self._scripts: dict[str, Any] = {name: connection.register_script(text) for name, text in _sources().items()}

    def run(self, call: Call[T]) -> T:
        """Execute and wait. Raises `errors.StoreUnavailableError` and what the call's decoding raises."""
        talk = _talk(self._scripts[call.script], call, self._replicas)
        commands = next(talk)
        while True:
            try:
                commands = talk.send(self._sent(commands))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def _sent(self, commands: Sequence[Command]) -> Sequence[Any]:
        try:
            pipeline = self._connection.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            replies: Sequence[Any] = pipeline.execute(raise_on_error=False)
            if self._replicas.lack(replies):
                self._connection.connection_pool.disconnect(inuse_connections=False)
        except FAULTS as exc:
            raise unavailable(exc) from exc
        return replies


class AsyncRedisLedger:
    """Executes calls for the API."""

    def __init__(self, connection: redis.asyncio.Redis, replicas: Replicas = Replicas()) -> None:
        self._connection = connection
        self._replicas = replicas
        self._scripts: dict[str, Any] = {name: connection.register_script(text) for name, text in _sources().items()}

    async def run(self, call: Call[T]) -> T:
        """Execute and wait. Raises `errors.StoreUnavailableError` and what the call's decoding raises."""
        talk = _talk(self._scripts[call.script], call, self._replicas)
        commands = next(talk)
        while True:
            try:
                commands = talk.send(await self._sent(commands))
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    async def _sent(self, commands: Sequence[Command]) -> Sequence[Any]:
        try:
            pipeline = self._connection.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            replies: Sequence[Any] = await pipeline.execute(raise_on_error=False)
            if self._replicas.lack(replies):
                await self._connection.connection_pool.disconnect(inuse_connections=False)
        except FAULTS as exc:
            raise unavailable(exc) from exc
        return replies

    async def confirm(self) -> None:
        """Wait until enough replicas have all that was written until now. Raises `errors.StoreUnavailableError`."""
        if self._replicas.count:
            await self.run(control.barrier())
