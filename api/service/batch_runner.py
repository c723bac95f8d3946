"""Submits the lines of batches, cancels and retries them, and tells when all of one is over."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from api.service import manifests
from api.service.archive import Archive
from api.service.batches import ObjectStore, jsonl, lines_of
from api.service.holding import HOLD_S, Holding, holding
from api.service.keys import Keys
from api.service.read import Reader
from api.service.submit import Submitter
from api.service.turns import Turns
from storage import connections
from storage.contracts import access, batches, errors, generations, submissions
from storage.ledger import batches as ledger_batches
from storage.ledger import call

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
SLICE = 8
"""Lines that are worked on at a time."""

MOST_UNFINISHED = 1000
"""Generations of a batch that are under way at a time, and at the most half of what its tenant may have: other requests want
room, too."""


class BatchRunner:
    """Works on batches. Several processes share them; any may die at any moment."""

    def __init__(
        self,
        *,
        ledger: call.AsyncLedger,
        objects: ObjectStore,
        submitter: Submitter,
        archive: Archive,
        reader: Reader,
        keys: Keys,
        turns: Turns,
        max_active: int,
    ) -> None:
        self._ledger = ledger
        self._objects = objects
        self._submitter = submitter
        self._archive = archive
        self._reader = reader
        self._keys = keys
        self._turns = turns
        self._most_unfinished = max(1, min(MOST_UNFINISHED, max_active // 2))

    async def run(self) -> None:
        """Look for what is to be done until cancelled."""
        while not connections.is_cancelled():
            try:
                taken = await self._ledger.run(ledger_batches.take(hold_s=HOLD_S))
                if taken is not None:
                    await self._work(taken)
                    continue
            except errors.TransientError as exc:
                log.warning("batches wait: %s", exc)
            except Exception:
                # Whatever is wrong with one, the others go on; it is tried again once it is held no more.
                log.exception("a batch cannot be worked on")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _work(self, taken: ledger_batches.Held) -> None:
        async with holding(self._ledger, taken) as one:
            await self._go_on(taken.batch, one)

    async def _go_on(self, batch: batches.Batch, hold: Holding) -> None:
        log.info("%s: the batch is %s from line %d", batch.id, batch.phase.value, batch.cursor + 1)
        if batch.phase is batches.Phase.RUNNING or batch.phase is batches.Phase.OVER:
            if batch.over < batch.accepted:
                if await self._caller(batch) is None:
                    await self._stop(batch, "its key is no longer valid")
                await hold.step(cursor=0)
            else:
                await self._finish(batch, hold)
            return
        lines = await self._lines(batch)
        if lines is None and batch.phase is not batches.Phase.CANCELLING:
            await self._stop(batch, "its lines are gone")
        lines = lines or []
        now: batches.Batch | None = batch
        while now is not None and now.phase is batch.phase:
            cursor = now.cursor
            # Asked each time: a key may end, or lose a right, while its lines are worked on.
            caller = await self._caller(batch)
            if caller is None and batch.phase is not batches.Phase.CANCELLING:
                await self._stop(batch, "its key is no longer valid")
                now = await hold.step(cursor=cursor)
                continue
            part = lines[cursor : cursor + SLICE]
            if not part:
                if batch.phase is not batches.Phase.RETRYING and lines:
                    await self._forget_submissions(batch, lines)
                await hold.step(cursor=cursor, becomes=batches.Phase.RUNNING)
                return
            done, wait_s = await self._slice(now, part, caller)
            now = await hold.step(cursor=cursor + done, wait_s=wait_s)
            if wait_s is not None:
                return
        if now is not None:
            # Something else is to be done with it: at once, by the next process that looks.
            await hold.step(cursor=0)

    async def _slice(
        self, batch: batches.Batch, part: Sequence[batches.Line], caller: access.Caller | None
    ) -> tuple[int, float | None]:
        """Do to some lines what is to be done; how many are done, and for how long the others wait, None if they need not."""
        steps: dict[batches.Phase, Callable[[batches.Line], Any]] = {
            batches.Phase.SUBMITTING: lambda line: self._submit(batch, line, caller),
            batches.Phase.CANCELLING: lambda line: self._cancel(batch, line),
            batches.Phase.RETRYING: lambda line: self._retry(batch, line, caller),
        }
        if batch.phase is batches.Phase.SUBMITTING:
            part = part[: max(0, self._most_unfinished - batch.unfinished)]
            if not part:
                return 0, LOOK_EVERY_S
        # Beside others one at a time, as a tenant's requests are. To wait for its turn would hold up others' batches.
        at_once = len(part) if self._turns.is_alone(batch.tenant) else 1
        outcomes: list[Any] = []
        for start in range(0, len(part), at_once):
            some = map(steps[batch.phase], part[start : start + at_once])
            outcomes += await asyncio.gather(*some, return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, errors.TransientError):
                return number, max(LOOK_EVERY_S, outcome.retry_after)
            if isinstance(outcome, errors.CancelledError):
                return number, 0.0
            if isinstance(outcome, BaseException):
                raise outcome
        return len(part), None

    async def _submit(self, batch: batches.Batch, line: batches.Line, caller: access.Caller | None) -> None:
        if line.submission is None or caller is None:
            return
        ids = (batches.generation_id(batch.id, line.custom_id),)
        submission = line.submission.model_copy(
            update={
                "batch": batch.id,
                "group": line.submission.group or batch.id,
                # Of one that was over and archived before this line was noted as submitted, this alone knows.
                "idempotency_key": f"batch/{batch.id}/{line.custom_id}",
            }
        )
        try:
            await self._submitter.submit(submission, caller, ids=ids)
        except (errors.TransientError, errors.CancelledError):
            raise
        except errors.DarkroomError as exc:
            refusal = submissions.Refusal(code=exc.code, message=exc.message)
        except Exception:
            # A fault of ours with one line must not hold up the others for ever.
            log.exception("%s: line %r cannot be submitted", batch.id, line.custom_id)
            refusal = submissions.Refusal(code=errors.InternalError.code, message="The line could not be submitted")
        else:
            return
        await self._submitter.refuse(submission.model_copy(update={"refused": refusal}), caller, ids=ids)

    async def _cancel(self, batch: batches.Batch, line: batches.Line) -> None:
        try:
            await self._archive.cancel(batches.generation_id(batch.id, line.custom_id), batch.tenant)
        except errors.NotFoundError:
            return  # it was not submitted

    async def _retry(self, batch: batches.Batch, line: batches.Line, caller: access.Caller | None) -> None:
        id_ = batches.generation_id(batch.id, line.custom_id)
        try:
            view = await self._reader.one(id_, batch.tenant)
            if caller is not None and view.generation.status is generations.Status.FAILED:
                await self._submitter.retry(id_, caller)
        except (
            errors.NotFoundError,
            errors.InvalidInputError,
            errors.ForbiddenError,
            errors.BudgetExceededError,
        ) as exc:
            log.info("%s stays as it is: %s", id_, type(exc).__name__)

    async def _forget_submissions(self, batch: batches.Batch, lines: Sequence[batches.Line]) -> None:
        """From here on the generations have their own, or are none: what is erased of one is to be found nowhere else."""
        bare = [line.model_copy(update={"submission": None}) for line in lines]
        await self._objects.put(batch.lines_key, jsonl(bare), "application/jsonl")
        await self._objects.delete_prefix(f"{batch.folder}pictures/")

    async def _stop(self, batch: batches.Batch, reason: str) -> None:
        log.warning("%s: %s, what is left of it is cancelled", batch.id, reason)
        await self._ledger.run(ledger_batches.change(batch.id, batch.tenant, "cancel"))

    async def _finish(self, batch: batches.Batch, hold: Holding) -> None:
        rows = [row async for row in self._rows(batch)]
        await self._objects.put(batch.results_key("jsonl"), manifests.jsonl(rows), "application/jsonl")
        await self._objects.put(batch.results_key("csv"), manifests.csv_file(rows), "text/csv; charset=utf-8")
        if await hold.finish(batch):
            log.info("%s: the batch is over", batch.id)

    async def _lines(self, batch: batches.Batch) -> list[batches.Line] | None:
        try:
            return await lines_of(self._objects, batch)
        except errors.NotFoundError:
            return None

    async def _rows(self, batch: batches.Batch) -> AsyncIterator[manifests.Row]:
        lines = await self._lines(batch) or []
        for start in range(0, len(lines), SLICE):
            part = lines[start : start + SLICE]
            for row in await asyncio.gather(*(self._row(batch, line) for line in part)):
                yield row

    async def _row(self, batch: batches.Batch, line: batches.Line) -> manifests.Row:
        view = None
        if line.fault is None:
            with contextlib.suppress(errors.NotFoundError):
                view = await self._reader.one(batches.generation_id(batch.id, line.custom_id), batch.tenant)
        return manifests.row(batch, line, view)

    async def _caller(self, batch: batches.Batch) -> access.Caller | None:
        try:
            return await self._keys.named(batch.caller, batch.tenant)
        except errors.UnauthenticatedError:
            return None
