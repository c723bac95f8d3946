"""The use case: an edit becomes generations.

Pictures are stored, the ledger accepts all generations or none, a ticket is rung. What was stored for a request that was
not accepted is removed again.
"""

import dataclasses
import hashlib
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from api.budgets import Budgets, month
from storage.contracts import edits, errors, generations
from storage.ledger import call, records

MAX_GENERATIONS = 4
"""Of one request of the native API."""


class ObjectStore(Protocol):
    """Where pictures go."""

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store. Raises `errors.ObjectsUnavailableError`."""

    async def copy(self, source: str, key: str) -> None:
        """Store again under another key. Raises `errors.ObjectsUnavailableError` and `errors.NotFoundError`."""

    async def delete_prefix(self, prefix: str) -> None:
        """Remove everything below a prefix. Raises `errors.ObjectsUnavailableError`."""


@dataclass(frozen=True, kw_only=True)
class SentPicture:
    """A picture that came with the request."""

    data: bytes
    content_type: str
    transparent: bool


@dataclass(frozen=True, kw_only=True)
class KeptPicture:
    """A picture of an earlier generation, by its key in the object store. It is copied: what made it may be gone sooner."""

    key: str


Picture = SentPicture | KeptPicture | edits.RemoteInput


@dataclass(frozen=True, kw_only=True)
class Route:
    """The queue a generation waits on, and all it may wait on when there are several.

    `gpu_types` are those it can run on; empty means all of the model's. `is_served`: a worker for it is there just now.
    """

    queue: str
    chain: tuple[str, ...] = ()
    gpu_types: tuple[str, ...] = ()
    is_served: bool = True


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a dialect made of somebody's request.

    `edit` says everything but its pictures, which are `references` and `mask`, and its seed: `seed` None means random; each
    generation after the first adds one. `queue_ttl_s` and `execution_limit_s` None mean the operator's, which are also the most.
    `deadline_s` from now it is over, whatever it does then. `submitted` is echoed by dialects that echo. `refused` asks for
    generations that are recorded as failed for that reason.
    """

    tenant: str
    route: Route
    edit: edits.Edit
    references: Sequence[Picture]
    mask: Picture | None = None
    seed: int | None
    submitted: Mapping[str, object]
    count: int = 1
    queue_ttl_s: float | None = None
    execution_limit_s: float | None = None
    deadline_s: float | None = None
    namespace: str | None = None
    priority: int = generations.PRIORITY
    callback: generations.Callback | None = None
    idempotency_key: str | None = None
    refused: errors.InvalidInputError | None = None


class Submission:
    """Accepts requests."""

    def __init__(
        self,
        *,
        ledger: call.AsyncLedger,
        objects: ObjectStore,
        ring: Callable[[str], None],
        limits: records.Limits,
        own_key: Callable[[str, str], str | None],
        budgets: Budgets,
    ) -> None:
        """`own_key` says which object of a tenant a URL of ours leads to: such a picture is not fetched from ourselves."""
        self._ledger = ledger
        self._objects = objects
        self._ring = ring
        self._own_key = own_key
        self._budgets = budgets
        self.limits = limits
        """What is accepted."""

    async def submit(self, request: Request) -> records.Receipt:
        """Accept a request, whole or not at all.

        Raises `errors.StoreUnavailableError`, `errors.StoreFullError`, `errors.ObjectsUnavailableError`,
        `errors.TooManyActiveError`, `errors.BudgetExceededError` and `errors.IdempotencyConflictError`.
        """
        request = self._with_own_pictures(request)
        ids = [str(uuid.uuid4()) for _ in range(request.count)]
        prefix = f"inputs/{request.tenant}/{ids[0]}/"
        pictures = (*request.references, request.mask)
        sent = any(isinstance(picture, SentPicture | KeptPicture) for picture in pictures)
        try:
            references = tuple(
                [await self._stored(reference, f"{prefix}{n}") for n, reference in enumerate(request.references)]
            )
            mask = await self._stored(request.mask, f"{prefix}mask") if request.mask else None
            edit = request.edit.model_copy(update={"references": references, "mask": mask})
            order = self._order(request, ids, edit, prefix if sent else None)
            receipt = await self._ledger.run(records.create(order))
        except errors.StoreUnavailableError:
            # The ledger may have accepted it and only the answer was lost: its inputs must be there. An orphan does less harm.
            raise
        except errors.DarkroomError:
            if sent:
                await self._discard(prefix)
            raise
        if receipt.replayed and receipt.ids != tuple(ids) and sent:
            await self._discard(prefix)
        if receipt.ring:
            self._ring(request.route.queue)
        return receipt

    def _with_own_pictures(self, request: Request) -> Request:
        def own(picture: Picture) -> Picture:
            key = self._own_key(picture.url, request.tenant) if isinstance(picture, edits.RemoteInput) else None
            return picture if key is None else KeptPicture(key=key)

        mask = own(request.mask) if request.mask else None
        return dataclasses.replace(request, references=[own(one) for one in request.references], mask=mask)

    def _limits_of(self, request: Request) -> records.Limits:
        return dataclasses.replace(
            self.limits,
            queue_ttl_s=min(request.queue_ttl_s or self.limits.queue_ttl_s, self.limits.queue_ttl_s),
            execution_limit_s=min(
                request.execution_limit_s or self.limits.execution_limit_s, self.limits.execution_limit_s
            ),
        )

    async def _stored(self, picture: Picture, key: str) -> edits.Input:
        if isinstance(picture, edits.RemoteInput):
            return picture
        if isinstance(picture, KeptPicture):
            await self._objects.copy(picture.key, key)
        else:
            await self._objects.put(key, picture.data, picture.content_type)
        return edits.StoredInput(key=key)

    async def _discard(self, prefix: str) -> None:
        try:
            await self._objects.delete_prefix(prefix)
        except errors.ObjectsUnavailableError:
            return  # the caller learns of the first fault, not of this one

    def _order(self, request: Request, ids: Sequence[str], edit: edits.Edit, prefix: str | None) -> records.Order:
        first = request.seed if request.seed is not None else secrets.randbelow(edits.MAX_SEED + 1)
        made = [edit.model_copy(update={"seed": (first + n) % (edits.MAX_SEED + 1)}) for n in range(len(ids))]
        limits = self._limits_of(request)
        budget = self._budgets.of(request.tenant)
        liability = 0
        if budget is not None:
            liability = self._budgets.liability(edit, request.route.gpu_types, limits.execution_limit_s)
        return records.Order(
            tenant=request.tenant,
            namespace=request.namespace,
            queue=request.route.queue,
            chain=request.route.chain,
            month=month(),
            budget=budget,
            reserve=liability,
            edits=made,
            ids=ids,
            submitted=[dict(request.submitted)] * len(ids),
            inputs_prefix=prefix,
            limits=limits,
            priority=request.priority,
            callback=request.callback,
            deadline_s=request.deadline_s,
            idempotency_key=request.idempotency_key,
            fingerprint=_fingerprint(request),
            refused=request.refused,
        )


def _fingerprint(request: Request) -> str:
    digest = hashlib.sha256(
        repr(
            (
                request.edit.model_dump_json(exclude={"deliver"}),
                request.seed,
                request.count,
                sorted(request.submitted.items()),
            )
        ).encode()
    )
    for role, picture in [*(("reference", one) for one in request.references), ("mask", request.mask)]:
        digest.update(f"|{role}|".encode())
        if isinstance(picture, SentPicture):
            digest.update(picture.data)
        elif picture is not None:
            digest.update((picture.key if isinstance(picture, KeptPicture) else picture.url).encode())
    return digest.hexdigest()
