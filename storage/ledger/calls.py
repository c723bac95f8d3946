"""The ledger's scripts as calls: which script, which arguments, and how its reply is read.

A call is a value. Workers execute it synchronously, the API asynchronously (`storage.ledger.execution`); nothing is
written twice.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from storage.contracts import edits, errors, generations, samples

log = logging.getLogger(__name__)

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


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """A worker: its name and where it is."""

    worker: str
    gpu_type: str = "cpu"
    region: str = "local"


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A generation was taken whose record this version cannot read; it is to be handed back (`release_unreadable`)."""

    id: str
    token: int
    queue: str


@dataclass(frozen=True, kw_only=True)
class Deferred:
    """Nothing is to be claimed yet: what waits on `queue` is left to others for a moment."""

    queue: str


def claim(
    claimant: Claimant,
    lease_ms: int,
    queues: Sequence[str],
    *,
    preferred: int | None = None,
    patience_ms: int = 0,
    deferred: int = 0,
    deferral_ms: int = 0,
    newest: int = generations.RECORD_VERSION,
) -> Call[generations.Claim | Deferred | Unreadable | None]:
    """Take the next generation of the first of these queues that has one.

    Only the first `preferred` are served before one of the others in which somebody has waited longer than `patience_ms`.
    The last `deferred` are served only when somebody has waited there for `deferral_ms`. Records of a version beyond `newest` are
    left to others.
    """

    def decode(reply: list[Any] | None) -> generations.Claim | Deferred | Unreadable | None:
        if not reply:
            return None
        if reply[0] == "deferred":
            return Deferred(queue=reply[1])
        id_, tenant, token, attempt, limit_s, edit, waited_ms, queue = reply
        try:
            return generations.Claim(
                id=id_,
                tenant=tenant,
                token=token,
                attempt=attempt,
                execution_limit_s=float(limit_s),
                # Strictly: to leave out a field would make another picture than the one that was asked for.
                edit=edits.Edit.model_validate_json(edit),
                waited_ms=int(waited_ms),
                queue=queue,
            )
        except ValueError:
            return Unreadable(id=id_, token=token, queue=queue)

    first = len(queues) if preferred is None else preferred
    who = (claimant.worker, claimant.gpu_type, claimant.region)
    return Call(
        script="claim",
        arguments=(*who, lease_ms, first, patience_ms, deferred, deferral_ms, newest, *queues),
        decode=decode,
    )


def beat(
    claim: generations.Claim,
    lease_ms: int,
    step: int,
    phase: generations.Phase,
    *,
    loaded_percent: int = 0,
    preview: str = "",
) -> Call[bool]:
    """Renew the lease and report `step` steps done, how much of the model is loaded, and how it looks (a data URI).

    False: the claim is lost, stop working.
    """
    arguments = (claim.id, claim.token, lease_ms, step, claim.edit.steps, phase.value, loaded_percent, preview)
    return Call(script="beat", arguments=arguments, decode=lambda reply: reply == "held")


def finish(
    claim: generations.Claim, result: generations.Result, target: samples.Target, sample: samples.Sample
) -> Call[bool]:
    """Publish the result and note what it took. False: the claim is lost, the result is nobody's."""
    kept_ms = int(generations.RESULT_LIFETIME.total_seconds() * 1000)
    noted = (target.name, sample.model_dump_json(exclude_defaults=True), sample.pixels, sample.execute_ms)
    cost = round((result.cost_usd or 0) * 1_000_000)
    arguments = (
        claim.id,
        claim.token,
        result.model_dump_json(exclude_defaults=True),
        kept_ms,
        claim.edit.steps,
        *noted,
        cost,
    )
    return Call(script="finish", arguments=arguments, decode=lambda reply: reply == "done")


def fail(
    claim: generations.Claim,
    error: errors.DarkroomError,
    *,
    rest_s: float | None,
    max_attempts: int,
    target: samples.Target | None = None,
    sample: samples.Sample | None = None,
    max_losses: int | None = None,
) -> Call[Literal["failed", "queued", "lost"]]:
    """End it as failed, or queue it again after `rest_s` seconds while attempts are left; None never tries again.

    With `max_losses` it took its worker down, which may happen so often.
    """
    rest_ms = -1 if rest_s is None else int(rest_s * 1000)
    details = json.dumps(dict(error.details)) if error.details else ""
    noted = (target.name, sample.model_dump_json(exclude_defaults=True)) if target and sample else ("", "")
    arguments = (
        claim.id,
        claim.token,
        error.code,
        error.message,
        rest_ms,
        max_attempts,
        details,
        *noted,
        max_losses or "",
    )
    return Call(script="fail", arguments=arguments, decode=lambda reply: reply)


def release(claim: generations.Claim) -> Call[bool]:
    """Hand it back without counting the attempt. False: it was lost already."""
    return Call(script="release", arguments=(claim.id, claim.token, "", 0), decode=lambda reply: reply == "queued")


UNREADABLE_AT_MOST = 10
UNREADABLE_REST_MS = 2000
"""A record that a worker cannot read rests 2, 4, 8, … s, at most a minute, ten times: about six minutes for an upgrade to end."""


def release_unreadable(taken: Unreadable) -> Call[Literal["queued", "failed", "lost"]]:
    """Hand back what this version cannot read, without counting the attempt."""
    arguments = (taken.id, taken.token, UNREADABLE_AT_MOST, UNREADABLE_REST_MS)
    return Call(script="release", arguments=arguments, decode=lambda reply: reply)


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


TALLIED = 1000
"""Unfinished generations that a count looks at, so that it never blocks Redis for long."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What a tenant's generations of a model came to in the last month, and how many are under way.

    `queued` and `processing` are counted among the tenant's `TALLIED` oldest unfinished.
    """

    succeeded: int
    failed: int
    cancelled: int
    retried: int
    queued: int
    processing: int


def tally(tenant: str, model: str) -> Call[Tally]:
    """Count a tenant's generations of one model."""

    def decode(reply: list[int]) -> Tally:
        succeeded, failed, cancelled, retried, queued, processing = reply
        return Tally(
            succeeded=succeeded,
            failed=failed,
            cancelled=cancelled,
            retried=retried,
            queued=queued,
            processing=processing,
        )

    return Call(script="tally", arguments=(tenant, model, TALLIED), decode=decode)


@dataclass(frozen=True, kw_only=True)
class DueCallback:
    """A webhook to be called now, after `tries` that came to nothing; nobody else gets it before `held_until`."""

    moment: generations.Moment
    tries: int
    held_until: str
    record: Mapping[str, str]

    @property
    def id(self) -> str:
        """The generation's."""
        return self.record["id"]

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.record["tenant"]

    @property
    def generation(self) -> generations.Generation:
        """Raises `ValueError` for a record that this version cannot read."""
        return generations.Generation.from_record(self.record, None)


def callbacks(
    *, held_ms: int, limit: int = 16, most_of_a_tenant: int = 16, calling: Sequence[str] = ()
) -> Call[tuple[DueCallback, ...]]:
    """Webhooks that are due, `limit` at the most; nobody else gets them for a while.

    `calling` names the tenant of each that the caller is calling already: with those, no tenant has more than so many.
    """

    def decode(reply: list[Any]) -> tuple[DueCallback, ...]:
        return tuple(
            DueCallback(moment=moment, tries=tries, held_until=held, record=_by_id(flat))
            for moment, tries, held, flat in reply
        )

    return Call(script="callbacks", arguments=(held_ms, limit, most_of_a_tenant, *calling), decode=decode)


def called(due: DueCallback, *, again_ms: int | None, outcome: str) -> Call[int]:
    """A webhook was called; None: it is done with. 0: it became due anew meanwhile, and stays so."""
    arguments = (due.id, due.moment, -1 if again_ms is None else again_ms, outcome, due.held_until)
    return Call(script="called", arguments=arguments, decode=int)


def keep(prefix: str, *, seconds: float) -> Call[int]:
    """Have the objects below a prefix deleted after a while."""
    return Call(script="keep", arguments=(prefix, int(seconds * 1000)), decode=int)


def _generation(position: int | None, flat: Sequence[str]) -> generations.Generation:
    return generations.Generation.from_record(_by_id(flat), position)


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
            log.warning("%s is left out of a list, it cannot be read: %s", _by_id(record).get("id"), type(exc).__name__)


def _by_id(reply: Sequence[str]) -> dict[str, str]:
    return dict(zip(reply[::2], reply[1::2], strict=True))


SWEEP = 100
"""Generations one sweep's script takes at the most, so that it never blocks Redis for long."""


def recover(*, lease_ms: int, stall_ms: int, max_attempts: int, max_losses: int) -> Call[dict[str, str]]:
    """Take back what silent workers held; which ids became `queued` or `failed`."""
    return Call(script="recover", arguments=(lease_ms, stall_ms, max_attempts, max_losses, SWEEP), decode=_by_id)


def wake() -> Call[dict[str, str]]:
    """End rests and waits that are over; which ids became `pending` or `expired`."""
    return Call(script="wake", arguments=(SWEEP,), decode=_by_id)


def parked() -> Call[list[dict[str, str]]]:
    """Records of parked generations of all tenants, newest first."""

    def decode(reply: list[list[str]]) -> list[dict[str, str]]:
        return [_by_id(record) for record in reply]

    return Call(script="parked", arguments=(1000,), decode=decode)


def unpark(id_: str, action: Literal["retry", "drop"], *, queue_ttl_s: float) -> Call[bool]:
    """Try a parked generation anew, or take it off the list. False: it is not parked."""
    arguments = (id_, action, int(queue_ttl_s * 1000))
    return Call(script="unpark", arguments=arguments, decode=lambda reply: reply == "done")


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """What waits on one queue."""

    queue: str
    pending: int
    tickets: int

    @property
    def missing_tickets(self) -> int:
        """How many tickets would have to be sent for every waiting generation to be noticed."""
        return max(0, min(self.pending, MAX_TICKETS) - self.tickets)


def backlog() -> Call[tuple[Backlog, ...]]:
    """What waits, queue by queue."""

    def decode(reply: list[Any]) -> tuple[Backlog, ...]:
        rows = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return tuple(Backlog(queue=queue, pending=pending, tickets=tickets) for queue, pending, tickets in rows)

    return Call(script="backlog", arguments=(), decode=decode)


def expired(passed_over: int = 0) -> Call[str | None]:
    """An object prefix that is to be deleted now, after so many others."""
    return Call(script="expired", arguments=(passed_over,), decode=lambda reply: reply[0] if reply else None)


def forget(prefix: str) -> Call[int]:
    """This prefix was deleted; it stays listed should it have been given more time meanwhile."""
    return Call(script="forget", arguments=(prefix,), decode=int)


def present() -> Call[dict[str, dict[str, Any]]]:
    """What every process that is there says of itself, by name."""
    return Call(
        script="present",
        arguments=(),
        decode=lambda reply: {name: json.loads(facts) for name, facts in _by_id(reply).items()},
    )


def reroute(lately: Sequence[str], served: Sequence[str]) -> Call[dict[str, str]]:
    """Move what waits where nobody has served `lately` to another queue it may wait on that is served; id to its new queue."""
    return Call(script="reroute", arguments=(SWEEP, len(lately), *lately, *served), decode=_by_id)


MOST_SAMPLES = 200
"""Of one target: as many as are kept."""


def samples_of(model: str) -> Call[dict[samples.Target, tuple[samples.Sample, ...]]]:
    """The latest samples of a model on every target, newest first."""

    def decode(reply: list[Any]) -> dict[samples.Target, tuple[samples.Sample, ...]]:
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return {samples.Target.named(name): tuple(samples.readable(found)) for name, found in pairs}

    return Call(script="samples", arguments=(model, MOST_SAMPLES), decode=decode)


def usage(tenant: str, month: str) -> Call[dict[str, int]]:
    """What a tenant used in a month, by `<model>:<what>`, and what is `spent` and `reserved` in millionths of a dollar."""
    return Call(
        script="usage",
        arguments=(tenant, month),
        decode=lambda reply: {name: int(value) for name, value in _by_id(reply).items()},
    )


Wish = Literal["once", "always", "never"]
"""How a model is wanted on a target: loaded once, kept loaded, let go."""


def want(target: samples.Target, how: Wish, *, seconds: float, worker: str = "") -> Call[int]:
    """Ask for a model, of a `worker` or of any; its target's GPU type and region may be `any`.

    After `seconds` it is forgotten, unless for always.
    """
    arguments = (target.model, target.gpu_type, target.region, how, int(seconds * 1000), worker)
    return Call(script="want", arguments=arguments, decode=int)


@dataclass(frozen=True)
class Wanted:
    """A wish as a worker is told of it; one that is renewed has another end, in milliseconds since 1970."""

    how: Wish
    until_ms: int


def wanted(claimant: Claimant, models: Sequence[str]) -> Call[dict[str, Wanted]]:
    """What a worker is to load or to let go of, by model."""

    def decode(reply: list[Any]) -> dict[str, Wanted]:
        told = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return {model: Wanted(how, int(until_ms)) for model, how, until_ms in told}

    arguments = (claimant.worker, claimant.gpu_type, claimant.region, *models)
    return Call(script="wanted", arguments=arguments, decode=decode)
