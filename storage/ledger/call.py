"""A script of the ledger as a value: its name, its arguments, and how its reply is read.

Workers execute it synchronously, the API asynchronously (`storage.ledger.execution`); nothing is written twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MAX_TICKETS = 16
"""Tickets a queue holds at the most. Each wakes a worker that then serves until nothing waits, so more would only pile up."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T_co]):
    """A script, its arguments, and the meaning of its reply."""

    script: str
    arguments: tuple[str | int | float, ...]
    decode: Callable[[Any], T_co]


class Ledger(Protocol):
    """Something that executes calls and waits for them."""

    def run(self, call: Call[T]) -> T:
        """Execute. Raises `errors.StoreUnavailableError`."""
        ...


class AsyncLedger(Protocol):
    """The same for a coroutine."""

    async def run(self, call: Call[T]) -> T:
        """Execute. Raises `errors.StoreUnavailableError`."""
        ...


def table_of(reply: Sequence[str]) -> dict[str, str]:
    """A flat reply, name and value in turn, as a table."""
    return dict(zip(reply[::2], reply[1::2], strict=True))
