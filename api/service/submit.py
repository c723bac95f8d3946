"""A submission becomes generations.

It is checked and routed, its pictures are stored, the ledger accepts all generations or none, a worker is woken. What was stored
for a submission that was not accepted is removed again.
"""

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from api.service import checks, rights
from api.service.accepted import Accepted
from api.service.archive import Archive
from api.service.budgets import Budgets, month
from api.service.inputs import Inputs, ObjectStore, are_to_be_stored
from api.service.pacing import Pacing, sent_bytes
from api.service.reservations import Reservations, place_of
from api.service.retention import Retention
from storage import traces
from storage.contracts import access, catalog, edits, errors, queue_names, submissions
from storage.ledger import call, expiry, records

log = logging.getLogger(__name__)

SMALL = 256 * 1024
"""Pictures of so many bytes are hashed at once; more take longer than other requests should wait."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """The queue a generation waits on, and all it may wait on when there are several.

    `gpu_types` are those it can run on; empty means all of the model's. `is_served`: a worker for it is there just now.
    """

    queue: str
    chain: tuple[str, ...] = ()
    gpu_types: tuple[str, ...] = ()
    is_served: bool = True


class Router(Protocol):
    """Finds the queue of a submission."""

    async def route(self, submission: submissions.Submission) -> Route:
        """Raises `errors.InvalidInputError` and `errors.StoreUnavailableError`."""
        ...


class Submitter:
    """Accepts submissions."""

    def __init__(
        self,
        *,
        known: catalog.Catalog,
        ledger: call.AsyncLedger,
        archive: Archive,
        objects: ObjectStore,
        router: Router,
        send_ticket: Callable[[str], None],
        limits: records.Limits,
        own_key: Callable[[str, str], str | None],
        refuses: Callable[[str], bool],
        refuses_webhook: Callable[[str], bool],
        budgets: Budgets,
        retention: Retention,
        pacing: Pacing,
    ) -> None:
        """`own_key` says which object of a tenant a URL of ours leads to: such a picture is not fetched from ourselves.

        `refuses` says of other URLs whether they may not be fetched, `refuses_webhook` whether they may not be called.
        """
        self._known = known
        self._ledger = ledger
        self._archive = archive
        self._inputs = Inputs(ledger, objects)
        self._reservations = Reservations(ledger)
        self._router = router
        self._send_ticket = send_ticket
        self._limits = limits
        self._own_key = own_key
        self._refuses = refuses
        self._refuses_webhook = refuses_webhook
        self._budgets = budgets
        self._retention = retention
        self._pacing = pacing

    def check_addresses(self, submission: submissions.Submission, tenant: str) -> None:
        """Whether a native submission's URLs may be fetched and called, as far as they say. Raises `errors.InvalidInputError`."""
        self._check_addresses(self._with_own_pictures(submission, tenant), submission.webhook, checks.NATIVE)

    def _with_own_pictures(self, submission: submissions.Submission, tenant: str) -> edits.Edit:
        return submission.edit.with_pictures(lambda picture: self._own(picture, tenant))

    def _check_addresses(self, edit: edits.Edit, webhook: submissions.Webhook | None, names: checks.Names) -> None:
        checks.addresses(edit, self._refuses, names)
        if webhook is not None:
            checks.called(webhook.url, names.webhook, self._refuses_webhook)

    async def submit(
        self,
        submission: submissions.Submission,
        caller: access.Caller,
        *,
        names: checks.Names = checks.NATIVE,
        ids: Sequence[str] = (),
    ) -> Accepted:
        """Accept a caller's submission, whole or not at all; `names` are the dialect's for its fields.

        With `ids`, one for each generation, what was accepted under them before is not accepted again, and its pictures stay.

        Raises `errors.InvalidInputError`, `errors.StoreUnavailableError`, `errors.StoreFullError`,
        `errors.ObjectsUnavailableError`, `errors.TooManyActiveError`, `errors.TooManyRequestsError`,
        `errors.BudgetExceededError`, `errors.ForbiddenError`, `errors.IdempotencyConflictError` and, for a batch that takes no
        more, `errors.CancelledError`.
        """
        tenant = caller.tenant
        checks.check(submission, self._known, names=names, may_be_unfiltered=caller.rights.unfiltered)
        edit = self._with_own_pictures(submission, tenant)
        if not ids:
            # Lines of a batch were looked at when it came.
            self._check_addresses(edit, submission.webhook, names)
        allowed = rights.applied(submission, caller.rights, self._known)
        route = await self._router.route(allowed)
        # Not its pins: what was asked for is what is recorded, and compared when it is sent again.
        submission = submission.model_copy(update={"priority": allowed.priority})
        pace = await self._pacing.submission(submission, caller)
        if caller.token_id is not None:
            submission = rights.of_token(submission, caller.token_id)
        fingerprint = await self._fingerprint(submission)
        submission = self._retention.applied(submission, caller)
        seed = submission.seed if submission.seed is not None else random.randint(0, edits.MAX_SEED)  # noqa: S311  (no secret)
        before = expiry.Acceptance.of(submission, tenant, ids[0]) if ids else None
        stored = are_to_be_stored(edit)
        if not ids:
            first = await self._reservations.take(tenant) if stored else str(uuid.uuid4())
            ids = [first, *(str(uuid.uuid4()) for _ in range(submission.count - 1))]
        prefix = place_of(tenant, ids[0])
        if before is not None:
            stored = stored and await self._inputs.announce(prefix, accepted_as=before)
        try:
            if stored:
                edit = await self._inputs.store(edit, prefix)
            seeded = submission.model_copy(update={"edit": edit.model_copy(update={"seed": seed})})
            creation = records.create(
                seeded,
                tenant=tenant,
                ids=ids,
                queue=route.queue,
                chain=route.chain,
                limits=self._limits,
                month=month(),
                allowance=self._allowance(submission, caller, route),
                inputs_prefix=prefix if stored else None,
                fingerprint=fingerprint,
                token=caller.token_id,
                trace=traces.current(),
            )
            created = await self._ledger.run(creation)
        except errors.StoreUnavailableError:
            # The ledger may have accepted it and only the answer was lost: its inputs must be there.
            raise
        except errors.DarkroomError:
            await self._pacing.give_back(caller, submission.count)
            # What was accepted under the same ids before has its pictures there.
            if stored and before is None:
                await self._inputs.discard(prefix)
            raise
        if created.replayed:
            await self._pacing.give_back(caller, submission.count)
            if created.ids != tuple(ids) and stored:
                await self._inputs.discard(prefix)
        if created.needs_ticket:
            self._send_ticket(route.queue)
        log.info("accepted %s", " ".join(created.ids))
        traces.note(generation_ids=created.ids)
        return Accepted(
            ids=created.ids,
            cursor=created.cursor,
            replayed=created.replayed,
            is_served=route.is_served,
            submission=seeded,
            tenant=tenant,
            pace=pace,
        )

    async def refuse(self, submission: submissions.Submission, caller: access.Caller, *, ids: Sequence[str]) -> None:
        """Record generations as failed, for the submission's `refused`, unless they are known; they have no pictures.

        Raises `errors.StoreUnavailableError`, `errors.StoreFullError`, `errors.TooManyActiveError` and `errors.CancelledError`.
        """
        bare = submission.edit.model_copy(update={"references": (), "mask": None, "seed": submission.seed or 0})
        creation = records.create(
            self._retention.applied(submission, caller).model_copy(update={"edit": bare}),
            tenant=caller.tenant,
            ids=ids,
            queue=queue_names.of(bare.model),
            limits=self._limits,
            month=month(),
        )
        with contextlib.suppress(errors.IdempotencyConflictError):  # it was accepted before
            await self._ledger.run(creation)

    async def retry(self, id_: str, caller: access.Caller) -> None:
        """Queue a failed generation again, under the same id. Raises as `records.retry`, and `errors.ForbiddenError`."""
        before = await self._archive.change(records.read(id_, caller.tenant), id_, caller.tenant)
        rights.check_again(before, caller.rights, self._known)
        await self._pacing.generations(caller, 1)
        budget = self._budgets.of(caller.tenant, caller.rights)
        again = records.retry(id_, caller.tenant, self._limits, budget=budget)
        try:
            queued = await self._archive.change(again, id_, caller.tenant)
        except errors.DarkroomError:
            await self._pacing.give_back(caller, 1)
            raise
        self._send_ticket(queued.queue)

    async def _fingerprint(self, submission: submissions.Submission) -> str | None:
        if submission.idempotency_key is None:
            return None
        return (
            submission.fingerprint()
            if sent_bytes(submission) <= SMALL
            else await asyncio.to_thread(submission.fingerprint)
        )

    def _own(self, picture: edits.Picture, tenant: str) -> edits.Picture:
        key = self._own_key(picture.url, tenant) if isinstance(picture, edits.RemotePicture) else None
        return picture if key is None else edits.KeptPicture(key=key)

    def _allowance(
        self, submission: submissions.Submission, caller: access.Caller, route: Route
    ) -> records.Allowance | None:
        budget = self._budgets.of(caller.tenant, caller.rights)
        if budget is None:
            return None
        limit_s = self._limits.execution_limit_of(submission)
        reserve = self._budgets.liability(submission.edit, route.gpu_types, limit_s)
        return records.Allowance(budget=budget, reserve=reserve)
