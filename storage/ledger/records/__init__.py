"""A generation's record as its caller sees it: accept, read, list, cancel, retry. What workers do to it is in `claims`."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from storage.contracts import edits, errors, generations
from storage.ledger.call import MAX_TICKETS, Call, table_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of what is accepted.

    Unfinished generations of the tenant, queued ones of all tenants, seconds to wait in the queue and to run.
    """

    max_active: int
    max_queued: int
    queue_ttl_s: float
    execution_limit_s: float


@dataclass(frozen=True, kw_only=True)
class Order:
    """What `create` is asked to accept: generations of one edit, apart from their seeds.

    With `refused` they are recorded as failed for that reason, at once. `deadline_s` from now they are over, one way or another.
    `chain` are the queues it may wait on, the first that is served first. Of a `budget` for the `month` (`2026-11`) each is
    reserved so much until it is over, both in millionths of a dollar.
    """

    tenant: str
    queue: str
    edits: Sequence[edits.Edit]
    ids: Sequence[str]
    submitted: Sequence[dict[str, object]]
    inputs_prefix: str | None
    limits: "Limits"
    namespace: str | None = None
    refused: errors.InvalidInputError | None = None
    priority: int = generations.PRIORITY
    callback: generations.Callback | None = None
    deadline_s: float | None = None
    chain: Sequence[str] = ()
    month: str = ""
    budget: int | None = None
    reserve: int = 0
    idempotency_key: str | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was accepted. `replayed` says that an earlier request was, and this one changed nothing."""

    ids: tuple[str, ...]
    cursor: str
    ring: bool
    replayed: bool


def create(order: Order) -> Call[Receipt]:
    """Accept generations, all or none.

    Raises `errors.IdempotencyConflictError`, `errors.TooManyActiveError`, `errors.StoreFullError` and
    `errors.BudgetExceededError` when decoded.
    """
    request = {
        "tenant": order.tenant,
        "namespace": order.namespace or order.tenant,
        "version": generations.RECORD_VERSION,
        "model": order.edits[0].model,
        "queue": order.queue,
        "month": order.month,
        "priority": order.priority,
        "max_active": order.limits.max_active,
        "max_queued": order.limits.max_queued,
        "queue_ttl_ms": int(order.limits.queue_ttl_s * 1000),
        "execution_limit_s": order.limits.execution_limit_s,
        "max_tickets": MAX_TICKETS,
        "generations": [
            {
                "id": id_,
                "edit": edit.model_dump_json(exclude_none=True),
                "submitted": json.dumps(submitted, separators=(",", ":")),
                "results": f"results/{order.tenant}/{id_}/",
            }
            for id_, edit, submitted in zip(order.ids, order.edits, order.submitted, strict=True)
        ],
    }
    optional = {"inputs": order.inputs_prefix, "idempotency": order.idempotency_key, "fingerprint": order.fingerprint}
    if order.callback:
        request |= {"callback": order.callback.model_dump_json(), "callback_moments": ",".join(order.callback.moments)}
    if order.budget is not None:
        request |= {"budget": order.budget, "reserve": order.reserve}
    if order.chain:
        request["chain"] = " ".join(order.chain)
    if order.deadline_s is not None:
        request["deadline_ms"] = int(order.deadline_s * 1000)
    if order.refused:
        request["refused"] = {"code": order.refused.code, "message": order.refused.message}
    request |= {name: value for name, value in optional.items() if value is not None}

    def decode(reply: list[Any]) -> Receipt:
        if reply[0] == "conflict":
            raise errors.IdempotencyConflictError("This Idempotency-Key was used before with a different request")
        _check_accepted(reply, order.limits)
        kind, cursor, ring, *ids = reply
        return Receipt(ids=tuple(ids), cursor=cursor, ring=bool(ring), replayed=kind == "replayed")

    return Call(script="create", arguments=(json.dumps(request),), decode=decode)


def _check_accepted(reply: list[Any], limits: Limits) -> None:
    if reply[0] == "full":
        message = f"{reply[1]} generations are unfinished; at most {limits.max_active} may be"
        raise errors.TooManyActiveError(message, retry_after=5.0)
    if reply[0] == "crowded":
        raise errors.StoreFullError(f"{reply[1]} generations are queued; the service takes no more", retry_after=10.0)
    if reply[0] == "overdrawn":
        message = f"This month's budget does not suffice: ${reply[1] / 1e6:.4f} of it is spent or reserved"
        raise errors.BudgetExceededError(message)


def cancel(
    id_: str, tenant: str, *, only_queued: bool = False
) -> Call[Literal["cancelled", "terminal", "processing", "missing"]]:
    """Cancel what is unfinished, or with `only_queued` what has not begun."""
    arguments = (id_, tenant, "queued" if only_queued else "any")
    return Call(script="cancel", arguments=arguments, decode=lambda reply: reply)


@dataclass(frozen=True, kw_only=True)
class Retried:
    """A failed generation is queued again, on `queue`."""

    queue: str


def retry(id_: str, tenant: str, limits: Limits, *, budget: int | None = None) -> Call[Retried]:
    """Queue a failed generation again: same id, attempts counted from zero, without the deadline it had.

    Raises `errors.NotFoundError`, `errors.InvalidInputError` for what has not failed or was refused for its parameters,
    `errors.TooManyActiveError`, `errors.StoreFullError` and `errors.BudgetExceededError`.
    """

    def decode(reply: list[Any]) -> Retried:
        if reply[0] == "missing":
            raise errors.NotFoundError("The requested resource could not be found")
        _check_accepted(reply, limits)
        if reply[0] != "queued":
            raise errors.InvalidInputError("Only what failed, and not for its parameters, can be retried")
        return Retried(queue=reply[1])

    arguments = (id_, tenant, limits.max_active, limits.max_queued, "" if budget is None else budget)
    return Call(script="retry", arguments=arguments, decode=decode)


def drain(id_: str, tenant: str) -> Call[bool]:
    """True for the first that takes a terminal generation's result from its stream."""
    return Call(script="drain", arguments=(id_, tenant), decode=bool)


def _generation(position: int | None, flat: Sequence[str]) -> generations.Generation:
    return generations.Generation.from_record(table_of(flat), position)


def read(id_: str, tenant: str) -> Call[generations.Generation]:
    """One generation with its queue position. Raises `errors.NotFoundError` when decoded."""

    def decode(reply: list[Any] | None) -> generations.Generation:
        if not reply:
            raise errors.NotFoundError("The requested resource could not be found")
        position = int(reply[0])
        return _generation(None if position < 0 else position, reply[1:])

    return Call(script="read", arguments=(id_, tenant), decode=decode)


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of a tenant's generations, newest first; `continue_below` asks for the next page, None is the end."""

    generations: tuple[generations.Generation, ...]
    continue_below: str | None


def list_(tenant: str, *, matching: Mapping[str, str], below: str | None, limit: int, active_only: bool) -> Call[Page]:
    """A tenant's generations whose record fields (`status`, `model`, `namespace`) equal those in `matching`."""

    def decode(reply: list[Any]) -> Page:
        return Page(generations=tuple(_readable(reply[1:])), continue_below=reply[0] or None)

    index = "active" if active_only else "history"
    pairs = (part for pair in matching.items() for part in pair)
    return Call(script="list", arguments=(tenant, index, below or "+inf", limit, *pairs), decode=decode)


def _readable(records: Iterable[Sequence[str]]) -> Iterator[generations.Generation]:
    for record in records:
        try:
            yield _generation(None, record)
        except (ValueError, KeyError) as exc:
            # One that is damaged, or much newer, hides none of the others.
            log.warning(
                "%s is left out of a list, it cannot be read: %s", table_of(record).get("id"), type(exc).__name__
            )
