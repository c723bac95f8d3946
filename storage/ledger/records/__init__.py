"""A generation's record as its caller sees it: accept, read, list, cancel, retry. What workers do to it is in `claims`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from storage.contracts import edits, errors, generations, submissions
from storage.ledger import archive
from storage.ledger.call import MAX_TICKETS, Call, table_of


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of what is accepted.

    Unfinished generations of the tenant, queued ones of all tenants, bytes of the tenant's records in Redis, seconds to wait in
    the queue and to run.
    """

    max_active: int
    max_queued: int
    max_bytes: int | None = None
    queue_ttl_s: float
    execution_limit_s: float

    def queue_ttl_of(self, submission: submissions.Submission) -> float:
        """Seconds that a submission may wait: as it asks for, up to these."""
        return min(submission.queue_ttl_s or self.queue_ttl_s, self.queue_ttl_s)

    def execution_limit_of(self, submission: submissions.Submission) -> float:
        """Seconds that each of its edits may run, likewise."""
        return min(submission.execution_limit_s or self.execution_limit_s, self.execution_limit_s)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """Of a month's `budget` each generation is reserved so much until it is over, both in millionths of a dollar."""

    budget: int
    reserve: int


@dataclass(frozen=True, kw_only=True)
class Created:
    """What was accepted, or with `replayed` was before. `needs_ticket`: the queue holds fewer tickets than it may."""

    ids: tuple[str, ...]
    cursor: str
    needs_ticket: bool
    replayed: bool


FINGERPRINTS = 2
"""The way fingerprints are made. An idempotency key of another way is taken to be of the same request."""


def create(
    submission: submissions.Submission,
    *,
    tenant: str,
    ids: Sequence[str],
    queue: str,
    limits: Limits,
    month: str = "",
    chain: Sequence[str] = (),
    allowance: Allowance | None = None,
    inputs_prefix: str | None = None,
    fingerprint: str | None = None,
    token: str | None = None,
    trace: str = "",
) -> Call[Created]:
    """Accept a submission as generations, all or none; the edit has the first one's seed, each after it adds one.

    `chain` are the queues they may wait on, `queue` the first of those that is served; `month` (`2026-11`) is what they count in;
    `token` is the browser token that they are taken from, `trace` what `storage.traces` calls the span that they came with.
    Raises `errors.PayloadTooLargeError`, and when decoded `errors.IdempotencyConflictError`, `errors.TooManyActiveError`,
    `errors.StoreFullError`, `errors.BudgetExceededError`, `errors.ForbiddenError` and `errors.CancelledError`.
    """
    edit, webhook = submission.edit, submission.webhook
    seeded = [
        submission.model_copy(
            update={"edit": edit.model_copy(update={"seed": (edit.seed + n) % (edits.MAX_SEED + 1)})},
        )
        for n in range(len(ids))
    ]
    request = {
        "tenant": tenant,
        "namespace": submission.namespace or tenant,
        "version": submission.record_version,
        "model": edit.model,
        "queue": queue,
        "month": month,
        "priority": submission.priority,
        "max_active": limits.max_active,
        "max_queued": limits.max_queued,
        "queue_ttl_ms": int(limits.queue_ttl_of(submission) * 1000),
        "execution_limit_s": limits.execution_limit_of(submission),
        "max_tickets": MAX_TICKETS,
        "fingerprints": FINGERPRINTS,
        "generations": [
            {"id": id_, "submission": one.recorded(), "results": f"results/{tenant}/{id_}/"}
            for id_, one in zip(ids, seeded, strict=True)
        ],
    }
    optional = {
        "max_bytes": limits.max_bytes,
        "inputs": inputs_prefix,
        "idempotency": submission.idempotency_key,
        "fingerprint": fingerprint,
        "token": token,
        "trace": trace or None,
        "fetched": 1 if edit.is_fetched else None,
        "group": submission.group,
        "batch": submission.batch,
        "ignored": " ".join(submission.ignored) or None,
        "webhook_moments": ",".join(webhook.moments) if webhook else None,
        "budget": allowance.budget if allowance else None,
        "reserve": allowance.reserve if allowance else None,
        "chain": " ".join(chain) or None,
        "deadline_ms": None if submission.deadline_s is None else int(submission.deadline_s * 1000),
        "keep_ms": None if submission.kept_s is None else int(submission.kept_s * 1000),
        "refused": submission.refused.model_dump() if submission.refused else None,
    }
    request |= {name: value for name, value in optional.items() if value is not None}

    def decode(reply: list[Any]) -> Created:
        if reply[0] == "conflict":
            raise errors.IdempotencyConflictError("This Idempotency-Key was used before with a different request")
        if reply[0] == "spent":
            raise errors.ForbiddenError("This token has no edits left")
        if reply[0] == "closed":
            raise errors.CancelledError("Its batch takes no more")
        _check_accepted(
            reply,
            limits,
            budget=allowance.budget if allowance else None,
            asked=allowance.reserve * len(ids) if allowance else None,
        )
        kind, cursor, ring, *accepted = reply
        return Created(ids=tuple(accepted), cursor=cursor, needs_ticket=bool(ring), replayed=kind == "replayed")

    return Call(script="create", arguments=(json.dumps(request),), decode=decode)


def _check_accepted(reply: list[Any], limits: Limits, *, budget: int | None = None, asked: int | None = None) -> None:
    if reply[0] == "full":
        message = f"{reply[1]} generations are unfinished; at most {limits.max_active} may be"
        raise errors.TooManyActiveError(message, retry_after=5.0)
    if reply[0] == "crowded":
        raise errors.StoreFullError(f"{reply[1]} generations are queued; the service takes no more", retry_after=10.0)
    if reply[0] == "heavy":
        raise archive.too_heavy(reply[1], limits.max_bytes)
    if reply[0] == "overdrawn":
        needed = "" if asked is None else f"; this may cost up to ${asked / 1e6:.4f}"
        of = "" if budget is None else f" of ${budget / 1e6:.4f}"
        raise errors.BudgetExceededError(
            f"This month's budget does not suffice: ${reply[1] / 1e6:.4f}{of} is spent or reserved{needed}. Fewer or smaller "
            "pictures, a cheaper model or GPU type, or an execution_timeout may fit; an operator can raise the budget"
        )


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
            raise errors.NotFoundError
        _check_accepted(reply, limits, budget=budget)
        if reply[0] != "queued":
            raise errors.InvalidInputError("Only what failed, and not for its parameters, can be retried")
        return Retried(queue=reply[1])

    arguments = (id_, tenant, limits.max_active, limits.max_queued, "" if budget is None else budget)
    return Call(script="retry", arguments=arguments, decode=decode)


def drain(id_: str, tenant: str) -> Call[bool]:
    """True for the first that takes a terminal generation's result from its stream. Raises `errors.NotFoundError`."""

    def decode(reply: int) -> bool:
        if reply < 0:
            raise errors.NotFoundError
        return bool(reply)

    return Call(script="drain", arguments=(id_, tenant), decode=decode)


def read(id_: str, tenant: str) -> Call[generations.Generation]:
    """One generation with its queue position. Raises `errors.NotFoundError` when decoded."""

    def decode(reply: list[Any] | None) -> generations.Generation:
        if not reply:
            raise errors.NotFoundError
        position = int(reply[0])
        return generations.Generation.from_record(table_of(reply[1:]), None if position < 0 else position)

    return Call(script="read", arguments=(id_, tenant), decode=decode)
