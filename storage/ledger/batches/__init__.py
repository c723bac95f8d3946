"""Batches: what is being done with them, by whom, and how many of their lines came to what."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from storage.contracts import batches, errors, submissions
from storage.ledger.call import Call, table_of

MAX_OPEN = 100
"""Batches of one tenant that are not over."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """A batch that nobody else works on before `until`."""

    batch: batches.Batch
    until: str


def create(
    *,
    id_: str,
    tenant: str,
    caller: str,
    name: str,
    total: int,
    refused: int,
    webhook: submissions.Webhook | None,
    idempotency_key: str | None,
    fingerprint: str,
) -> Call[str]:
    """Accept a batch; its id, or that of the one which its key led to before.

    Raises `errors.IdempotencyConflictError` and `errors.TooManyActiveError` when decoded.
    """
    arguments = {
        "id": id_,
        "tenant": tenant,
        "caller": caller,
        "name": name,
        "total": total,
        "refused": refused,
        "max_open": MAX_OPEN,
        "webhook": webhook.model_dump_json(exclude_defaults=True) if webhook else None,
        "idempotency": idempotency_key,
        "fingerprint": fingerprint,
    }

    def decode(reply: list[Any]) -> str:
        if reply[0] == "conflict":
            raise errors.IdempotencyConflictError("This Idempotency-Key was used before with a different batch")
        if reply[0] == "full":
            message = f"{reply[1]} batches are unfinished; at most {MAX_OPEN} may be"
            raise errors.TooManyActiveError(message, retry_after=30.0)
        return str(reply[1])

    told = json.dumps({name: value for name, value in arguments.items() if value is not None})
    return Call(script="batch_create", arguments=(told,), decode=decode)


def take(*, hold_s: float) -> Call[Held | None]:
    """A batch that is to be worked on; nobody else gets it for a while."""
    return Call(script="batch_take", arguments=(int(hold_s * 1000),), decode=_held)


def step(
    taken: Held,
    *,
    cursor: int,
    becomes: batches.Phase | None = None,
    hold_s: float | None = None,
    wait_s: float = 0,
) -> Call[Held | None]:
    """Note how far a batch is, and what follows; it is held on for `hold_s`, or left until `wait_s` from now.

    None: it was held no more. What it is to do may have changed: that is in the reply.
    """
    again = ("", int(wait_s * 1000)) if hold_s is None else (int(hold_s * 1000), "")
    arguments = (taken.batch.id, taken.until, taken.batch.phase, cursor, becomes or "", *again)
    return Call(script="batch_step", arguments=arguments, decode=_held)


def finish(taken: Held) -> Call[bool]:
    """A batch is over, and its manifest tells so; False: something of it was retried meanwhile."""
    one = taken.batch
    counts = f"{one.succeeded}:{one.failed}:{one.cancelled}"
    return Call(script="batch_finish", arguments=(one.id, taken.until, counts), decode=bool)


def change(id_: str, tenant: str, what: Literal["cancel", "retry"]) -> Call[bool]:
    """Cancel what is left of a batch, or retry what failed; False: there is nothing. Raises `errors.NotFoundError`."""

    def decode(reply: str) -> bool:
        if reply == "missing":
            raise errors.NotFoundError
        return reply == "changed"

    return Call(script="batch_change", arguments=(id_, tenant, what), decode=decode)


def read(id_: str, tenant: str) -> Call[batches.Batch]:
    """A batch. Raises `errors.NotFoundError` when decoded."""

    def decode(reply: Sequence[str] | None) -> batches.Batch:
        if not reply:
            raise errors.NotFoundError
        return batches.Batch.from_record(table_of(reply))

    return Call(script="batch_read", arguments=(id_, tenant), decode=decode)


def list_(tenant: str, *, limit: int) -> Call[tuple[batches.Batch, ...]]:
    """A tenant's latest batches, newest first."""
    return Call(
        script="batch_list",
        arguments=(tenant, limit),
        decode=lambda reply: tuple(batches.Batch.from_record(table_of(one)) for one in reply),
    )


def forget(batch: batches.Batch) -> Call[int]:
    """Forget a batch; its generations stay."""
    return Call(script="batch_forget", arguments=(batch.id, batch.tenant), decode=int)


def _held(reply: list[Any] | None) -> Held | None:
    if not reply:
        return None
    until, flat = reply
    return Held(batch=batches.Batch.from_record(table_of(flat)), until=until)
