"""How a batch moves on in the ledger, whichever process works on it and whatever is asked of it meanwhile."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from api.service import batch_runner, holding
from api.service import batches as batches_service
from api.service.archive import Archive
from api.service.batch_runner import BatchRunner
from api.service.batches import Batches
from api.service.objects import AsyncObjects
from api.service.read import Reader
from api.service.signing import Signatures
from api.service.turns import Turns
from storage import keys
from storage.contracts import access, batches, catalog, errors, generations, submissions
from storage.ledger import batches as ledger_batches
from storage.ledger import call, erasure, records, webhooks
from storage.objects import Objects
from storage.settings import StoreSettings
from tests.conftest import eventually
from tests.stores.archived import Async, moved
from tests.stores.conftest import QUEUE, Desk, a_submission, limits

CALLER = access.Caller(tenant="alice", name="key", rights=access.Rights())
HOOK = submissions.Webhook(url="http://example.com/hook", dialect="oxen")


class Submitter:
    """Accepts what a batch submits, or fails as it is told to."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.faults: list[Exception] = []
        self.submitted: list[str] = []

    async def submit(self, submission: submissions.Submission, caller: access.Caller, *, ids: Sequence[str]) -> None:
        if self.faults:
            raise self.faults.pop()
        assert caller == CALLER
        self.submitted += ids
        self._desk.run(records.create(submission, tenant="alice", ids=ids, queue=QUEUE, limits=limits()))

    async def refuse(self, submission: submissions.Submission, caller: access.Caller, *, ids: Sequence[str]) -> None:
        await self.submit(submission, caller, ids=ids)

    async def retry(self, id_: str, caller: access.Caller) -> None:
        self._desk.run(records.retry(id_, caller.tenant, limits()))


class Keys:
    """Knows one key, for as long as it holds."""

    def __init__(self) -> None:
        self.is_valid = True

    async def named(self, name: str, tenant: str) -> access.Caller:
        if not self.is_valid:
            raise errors.UnauthenticatedError("gone")
        return CALLER


class Office:
    """Batches of alice's, and somebody who works on them."""

    def __init__(self, desk: Desk, objects: Objects) -> None:
        ledger, store = Async(desk), AsyncObjects(objects)
        archive = Archive(ledger, store, max_bytes=None)
        known = catalog.Catalog(models={}, gpu_types={})
        reader = Reader(ledger=ledger, archive=archive, known=known, objects=store, signatures=Signatures(b"s"))
        self.desk, self.objects = desk, objects
        self.submitter, self.keys = Submitter(desk), Keys()
        self.batches = Batches(ledger, store, lambda url: False)
        self.runner = BatchRunner(
            ledger=ledger, objects=store, submitter=self.submitter, archive=archive, reader=reader, keys=self.keys,  # type: ignore[arg-type]
            turns=Turns(), max_active=10,
        )  # fmt: skip

    def create(self, count: int, *, webhook: submissions.Webhook | None = None) -> str:
        lines = [batches.Line(custom_id=str(number), submission=a_submission()) for number in range(count)]
        lines.append(batches.Line(custom_id="bad", fault=batches.Fault(code="invalid_input", message="no")))
        created = self.batches.create(
            lines, CALLER, name="", webhook=webhook, idempotency_key=None, fingerprint=str(uuid.uuid4())
        )
        return asyncio.run(created).id

    def read(self, id_: str) -> batches.Batch:
        return asyncio.run(self.batches.read(id_, "alice"))

    def work(self) -> bool:
        """Whether there was something to be done."""

        async def once() -> bool:
            held = self.desk.run(ledger_batches.take(hold_s=60))
            if held is not None:
                await self.runner._work(held)
            return held is not None

        return asyncio.run(once())

    def soon(self, id_: str) -> None:
        """What waits for a while waits no more."""
        if self.desk.connection.zscore(keys.BATCH_TURNS, id_) is not None:
            self.desk.connection.zadd(keys.BATCH_TURNS, {id_: 1})

    def finish(self, number: int, ending: str = "finish") -> None:
        for _ in range(number):
            claim = self.desk.claim()
            if ending == "finish":
                self.desk.finish(claim)
            else:
                self.desk.fail(claim, errors.InternalError("broken"), rest_s=None)

    def to_the_end(self, id_: str) -> batches.Batch:
        for _ in range(100):
            self.soon(id_)
            self.work()
            found = self.read(id_)
            if found.phase is batches.Phase.OVER:
                return found
            with contextlib.suppress(AssertionError):
                self.finish(1)
        raise AssertionError(self.read(id_))


@pytest.fixture
def office(desk: Desk, settings: StoreSettings) -> Iterator[Office]:
    with contextlib.closing(Objects(settings)) as objects:
        yield Office(desk, objects)


def test_half_of_what_a_tenant_may_have_is_left_to_others(office: Office) -> None:
    id_ = office.create(12)
    assert office.work()
    found = office.read(id_)
    assert (found.submitted, found.unfinished, found.cursor) == (5, 5, 5), "of ten"
    office.soon(id_)
    office.work()
    assert office.read(id_).submitted == 5
    office.finish(3)
    office.soon(id_)
    office.work()
    assert (office.read(id_).submitted, office.read(id_).succeeded) == (8, 3)
    assert office.to_the_end(id_).succeeded == 12
    assert len(office.submitter.submitted) == 12


def test_what_waits_for_the_last_generation_is_called_by_its_end(office: Office) -> None:
    id_ = office.create(2)
    while office.work():
        pass
    assert office.read(id_).phase is batches.Phase.RUNNING
    office.finish(1)
    assert not office.work(), "one is under way"
    office.finish(1)
    assert office.work()
    assert office.read(id_).phase is batches.Phase.OVER
    assert not office.work()


def test_a_process_that_died_is_followed_by_another_that_submits_nothing_twice(office: Office) -> None:
    id_ = office.create(4)
    held = office.desk.run(ledger_batches.take(hold_s=60))
    assert held is not None
    lines = asyncio.run(office.batches.lines(held.batch))
    asyncio.run(office.runner._slice(held.batch, lines[:3], CALLER))
    assert not office.work(), "it is held"
    office.soon(id_)
    office.work()
    found = office.read(id_)
    assert (found.submitted, found.unfinished) == (4, 4)
    assert len(office.submitter.submitted) == 7
    # The first is back, and is told that it is not its any more.
    assert office.desk.run(ledger_batches.step(held, cursor=3, hold_s=60)) is None
    assert not office.desk.run(ledger_batches.finish(held))
    assert office.to_the_end(id_).succeeded == 4


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_cancelled_batch_ends_with_every_line_counted_once(office: Office, when: str) -> None:
    id_ = office.create(9)
    if when != "before":
        office.work()
        office.finish(2)
    held = office.desk.run(ledger_batches.take(hold_s=60)) if when == "before" else None
    assert asyncio.run(office.batches.change(id_, "alice", "cancel"))
    assert not asyncio.run(office.batches.change(id_, "alice", "cancel")), "it is being cancelled"
    if held is not None:
        # A process in the middle of submitting submits nothing more.
        asyncio.run(office.runner._work(held))
    found = office.to_the_end(id_)
    assert (found.succeeded, found.cancelled, found.failed) == ((0, 9, 0) if when == "before" else (2, 7, 0))
    assert found.is_cancelled
    assert not asyncio.run(office.batches.change(id_, "alice", "cancel"))
    assert [one.status for one in _generations(office, id_, 9)] == ["succeeded"] * found.succeeded + ["cancelled"] * (
        found.submitted - found.succeeded
    )


def _generations(office: Office, id_: str, count: int) -> list[generations.Generation]:
    found = []
    for number in range(count):
        with contextlib.suppress(errors.NotFoundError):
            found.append(office.desk.read(batches.generation_id(id_, str(number))))
    return found


def test_a_batch_that_is_over_is_looked_at_once_more_and_left(office: Office) -> None:
    id_ = office.create(1)
    office.to_the_end(id_)
    office.desk.connection.zadd(keys.BATCH_TURNS, {id_: 1})
    assert office.work()
    assert not office.work()
    assert office.read(id_).phase is batches.Phase.OVER


def test_a_passing_fault_is_waited_for_and_another_fails_its_line(office: Office) -> None:
    id_ = office.create(3)
    office.submitter.faults = [errors.TooManyActiveError("full", retry_after=30.0)]
    office.work()
    assert office.read(id_).cursor < 3
    assert not office.work(), "it waits"
    office.soon(id_)
    office.submitter.faults = [errors.BudgetExceededError("nothing is left")]
    found = office.to_the_end(id_)
    assert (found.succeeded, found.failed) == (2, 1)
    (failed,) = [one for one in _generations(office, id_, 3) if one.status == "failed"]
    assert (failed.error_code, failed.error_message) == ("budget_exceeded", "nothing is left")


def test_what_is_retried_before_the_end_is_told_changes_what_is_told(office: Office) -> None:
    id_ = office.create(2, webhook=HOOK)
    office.work()
    office.finish(1, "fail")
    office.finish(1)
    held = office.desk.run(ledger_batches.take(hold_s=60))
    assert held is not None
    (failed,) = [one for one in _generations(office, id_, 2) if one.status == "failed"]
    office.desk.run(records.retry(failed.id, "alice", limits()))
    assert not office.desk.run(ledger_batches.finish(held))
    assert office.to_the_end(id_).succeeded == 2
    assert office.desk.event_types().count("media_batch_completed") == 1
    (due,) = office.desk.run(webhooks.due(held_ms=1))
    assert (due.moment, due.id, due.batch.succeeded, due.webhook) == ("batch", id_, 2, HOOK)
    assert office.desk.run(webhooks.called(due, again_ms=None, outcome="200", took_ms=1))


def test_a_retry_of_what_failed_runs_it_again_and_tells_again(office: Office) -> None:
    id_ = office.create(4, webhook=HOOK)
    office.work()
    office.finish(2, "fail")
    office.finish(2)
    office.work()
    assert (office.read(id_).failed, office.read(id_).phase) == (2, batches.Phase.OVER)
    assert asyncio.run(office.batches.change(id_, "alice", "retry"))
    assert office.read(id_).completed_ms is None
    assert office.to_the_end(id_).succeeded == 4
    assert not asyncio.run(office.batches.change(id_, "alice", "retry")), "nothing failed"
    assert office.desk.event_types().count("media_batch_completed") == 2
    rows = [json.loads(one) for one in office.objects.get(office.read(id_).results_key("jsonl")).splitlines()]
    assert [one["status"] for one in rows] == ["succeeded"] * 4 + ["refused"]


def test_a_key_that_is_revoked_submits_no_more(office: Office) -> None:
    id_ = office.create(20)
    office.work()
    office.keys.is_valid = False
    found = office.to_the_end(id_)
    assert (found.is_cancelled, found.submitted, found.cancelled + found.succeeded) == (True, 5, 20)


def test_a_key_that_is_revoked_ends_what_was_submitted_with_it(office: Office) -> None:
    id_ = office.create(3)
    office.work()
    assert office.read(id_).phase is batches.Phase.RUNNING
    turn = office.desk.connection.zscore(keys.BATCH_TURNS, id_)
    assert turn is not None
    assert 0 < float(turn) - office.desk.now_ms() <= 30_000, "it is looked at by itself"
    office.keys.is_valid = False
    for _ in range(4):
        office.soon(id_)
        office.work()
    found = office.read(id_)
    assert (found.phase, found.is_cancelled, found.cancelled) == (batches.Phase.OVER, True, 3)


def test_a_key_that_is_revoked_while_its_lines_are_submitted_submits_no_more(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_runner, "SLICE", 1)
    id_ = office.create(5)
    submit = office.submitter.submit

    async def until_revoked(*arguments: Any, **named: Any) -> None:
        await submit(*arguments, **named)
        office.keys.is_valid = len(office.submitter.submitted) < 2

    monkeypatch.setattr(office.submitter, "submit", until_revoked)
    office.work()
    assert len(office.submitter.submitted) == 2
    found = office.to_the_end(id_)
    assert (found.is_cancelled, found.submitted, found.cancelled) == (True, 2, 5)


def test_a_fault_of_ours_with_one_line_fails_that_line_alone(office: Office) -> None:
    id_ = office.create(3)
    office.submitter.faults = [KeyError("field")]
    found = office.to_the_end(id_)
    assert (found.succeeded, found.failed) == (2, 1)
    (failed,) = [one for one in _generations(office, id_, 3) if one.status == "failed"]
    assert failed.error_code == "internal"


def test_a_batch_whose_lines_are_lost_ends(office: Office) -> None:
    id_ = office.create(9)
    office.work()
    office.objects.delete(office.read(id_).lines_key)
    found = office.to_the_end(id_)
    assert (found.is_cancelled, found.submitted, found.cancelled + found.succeeded) == (True, 5, 9)


def test_prompts_lie_with_the_generations_alone_once_all_are_submitted(office: Office) -> None:
    id_ = office.create(2)
    key = office.read(id_).lines_key
    assert b"make it blue" in office.objects.get(key)
    office.work()
    assert b"make it blue" not in office.objects.get(key)
    office.to_the_end(id_)
    # What is erased is not in what is told anew, either.
    gone = batches.generation_id(id_, "0")
    office.desk.run(erasure.erase(gone, "alice"))
    assert b"make it blue" not in b"".join(
        office.objects.get(one.key) for one in office.objects.entries(office.read(id_).folder)
    )


def test_batches_are_bounded(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_batches, "MAX_OPEN", 2)
    first, _ = office.create(1), office.create(1)
    with pytest.raises(errors.TooManyActiveError, match="2 batches are unfinished"):
        office.create(1)
    office.to_the_end(first)
    office.create(1)


def test_only_so_many_that_are_over_are_remembered(office: Office) -> None:
    first = office.create(1)
    office.to_the_end(first)
    filling = {f"b{number}": number for number in range(10_000)}
    office.desk.connection.zadd(keys.BATCHES + "alice", filling)
    office.create(1)
    assert office.desk.connection.zcard(keys.BATCHES + "alice") == 10_000
    office.create(1)
    assert office.desk.connection.scard(keys.OPEN_BATCHES + "alice") == 2, "it is counted without looking at all"


def test_one_that_is_opened_again_counts_as_open(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_batches, "MAX_OPEN", 1)
    first = office.create(1)
    office.soon(first)
    office.work()
    office.finish(1, "fail")
    office.to_the_end(first)
    second = office.create(1)
    office.to_the_end(second)
    office.desk.run(records.retry(batches.generation_id(first, "0"), "alice", limits()))
    with pytest.raises(errors.TooManyActiveError, match="1 batches are unfinished"):
        office.create(1)


def test_a_key_of_the_release_before_leads_to_its_batch(desk: Desk) -> None:
    named: dict[str, Any] = {"tenant": "alice", "caller": "", "name": "", "total": 1, "refused": 0, "webhook": None}
    desk.run(ledger_batches.create(id_="b", **named, idempotency_key="x", fingerprint="f"))
    desk.connection.rename(keys.IDEMPOTENCY + "batch/alice:x", keys.IDEMPOTENCY + "alice:batch/x")
    assert desk.run(ledger_batches.create(id_="c", **named, idempotency_key="x", fingerprint="f")) == "b"


def test_a_batch_is_held_for_as_long_as_it_takes(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "RENEW_S", 0.01)
    id_ = office.create(1)

    async def slowly() -> None:
        held = office.desk.run(ledger_batches.take(hold_s=0))
        assert held is not None
        async with holding.holding(Async(office.desk), held) as one:
            # Held for no time at first, then for ten seconds.
            while office.desk.connection.zscore(keys.BATCH_TURNS, id_) < office.desk.now_ms() + 1000:  # type: ignore[operator]  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert office.desk.run(ledger_batches.take(hold_s=60)) is None
            # What is asked for meanwhile begins at its own first line.
            office.desk.run(ledger_batches.change(id_, "alice", "cancel"))
            now = await one.step(cursor=1, wait_s=None)
        assert now is not None
        assert (now.phase, now.cursor) == (batches.Phase.CANCELLING, 0)

    async def in_time() -> None:
        async with asyncio.timeout(10):
            await slowly()

    asyncio.run(in_time())


def test_a_look_that_fails_is_made_again(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_runner, "LOOK_EVERY_S", 0.001)
    id_, looks = office.create(1), 0
    work: Callable[[ledger_batches.Held], object] = office.runner._work

    async def broken(held: ledger_batches.Held) -> None:
        nonlocal looks
        looks += 1
        office.soon(id_)
        if looks < 3:
            raise KeyError("field")
        await work(held)  # type: ignore[misc]

    monkeypatch.setattr(office.runner, "_work", broken)

    async def until_submitted() -> None:
        running = asyncio.create_task(office.runner.run())
        await asyncio.to_thread(eventually, lambda: office.desk.connection.zcard(keys.ACTIVE + "alice"))
        running.cancel()

    asyncio.run(until_submitted())
    assert looks >= 3


@pytest.mark.parametrize("meanwhile", ["erased", "archived"])
def test_a_line_that_was_accepted_is_not_accepted_anew_whatever_became_of_it(office: Office, meanwhile: str) -> None:
    id_ = office.create(2)
    first = batches.generation_id(id_, "0")
    held = office.desk.run(ledger_batches.take(hold_s=60))
    assert held is not None
    lines = asyncio.run(office.batches.lines(held.batch))
    asyncio.run(office.runner._submit(held.batch, lines[0], CALLER))
    office.finish(1)
    if meanwhile == "erased":
        office.desk.run(erasure.erase(first, "alice"))
    else:
        moved(office.desk, office.objects)
        # As a day later.
        for key in office.desk.connection.scan_iter(keys.IDEMPOTENCY + "*"):
            office.desk.connection.delete(key)
    office.soon(id_)
    found = office.to_the_end(id_)
    assert first in office.submitter.submitted[1:], "the slice was submitted again"
    assert (found.submitted, found.succeeded) == (2, 2)
    assert not office.desk.connection.exists(keys.GENERATION + first)
    assert not list(office.desk.connection.scan_iter(keys.BATCH_LINES + "*")), (
        "nothing of it is kept once all are submitted"
    )


def test_a_manifest_that_is_written_over_by_an_older_one_is_written_anew(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = office.create(1)
    office.work()
    office.finish(1, "fail")
    put, batch = office.runner._objects.put, office.read(id_)

    def status() -> str:
        told = office.objects.get(batch.results_key("jsonl")).splitlines()
        return str(json.loads(told[0])["status"])

    async def retried_meanwhile(key: str, body: bytes, content_type: str) -> None:
        monkeypatch.setattr(office.runner._objects, "put", put)
        office.soon(id_)
        await _work_once(office)
        office.desk.run(records.retry(batches.generation_id(id_, "0"), "alice", limits()))
        office.finish(1)
        office.soon(id_)
        await _work_once(office)
        assert status() == "succeeded"
        await put(key, body, content_type)

    monkeypatch.setattr(office.runner._objects, "put", retried_meanwhile)
    office.work()
    assert status() == "failed", "of a tenant that was paused"
    assert office.work()
    assert status() == "succeeded"
    assert not office.work()
    assert office.desk.event_types().count("media_batch_completed") == 2, "its first end and its second"


async def _work_once(office: Office) -> None:
    held = office.desk.run(ledger_batches.take(hold_s=60))
    assert held is not None
    await office.runner._work(held)


@pytest.mark.parametrize("what", ["the batch", "one of it"])
def test_a_batch_that_is_retried_keeps_its_lines_as_long_as_it_may_wait(office: Office, what: str) -> None:
    id_ = office.create(1)
    office.work()
    office.finish(1, "fail")
    folder = office.to_the_end(id_).folder

    def days_left() -> float:
        due = office.desk.connection.zscore(keys.EXPIRING, folder)
        return (float(due or 0) - office.desk.now_ms()) / 86_400_000  # type: ignore[arg-type]

    ended = days_left()
    assert ended == pytest.approx(keys.LIFETIMES_S["record"] / 86_400, abs=0.1)
    if what == "the batch":
        assert asyncio.run(office.batches.change(id_, "alice", "retry"))
    else:
        office.desk.run(records.retry(batches.generation_id(id_, "0"), "alice", limits()))
    waiting = keys.LIFETIMES_S["waiting"] / 86_400
    assert waiting > ended + 1
    assert days_left() == pytest.approx(waiting, abs=0.1)
    office.to_the_end(id_)
    assert days_left() == pytest.approx(ended, abs=0.1)


def test_a_batchs_folder_is_kept_for_as_long_as_its_pictures_take(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_service, "ORPHANS_S", 0.0)
    kept: list[str] = []
    run = office.batches._ledger.run

    async def counted(one: call.Call[Any]) -> Any:
        kept.extend([one.script] * (one.script == "keep"))
        return await run(one)

    monkeypatch.setattr(office.batches._ledger, "run", counted)
    office.create(3)
    assert len(kept) >= 3
