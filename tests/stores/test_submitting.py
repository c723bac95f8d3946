"""Pictures of a submission that is not accepted go; what a batch's line is accepted as when it is submitted again."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api.service.archive import Archive
from api.service.budgets import Budgets
from api.service.objects import AsyncObjects
from api.service.pacing import Pacing
from api.service.retention import Retention
from api.service.submit import Route, Submitter
from storage import keys
from storage.contracts import access, edits, errors, submissions
from storage.ledger import access as ledger_access
from storage.ledger import records
from storage.objects import Objects
from storage.settings import StoreSettings
from tests.stores.archived import Async, is_here, moved
from tests.stores.conftest import QUEUE, Desk, a_submission, an_edit, limits
from workers.archiving import Archiver

CALLER = access.Caller(tenant="alice", name="key", rights=access.Rights())
IDS = ("line-1",)
PREFIX = "inputs/alice/line-1/"
DAY_MS = 86_400_000


class Router:
    """One queue for all."""

    async def route(self, submission: submissions.Submission) -> Route:
        return Route(queue=QUEUE)


class Store(AsyncObjects):
    """The object store, which is away when it is told to be."""

    is_down = False

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        if self.is_down:
            raise errors.ObjectsUnavailableError("away")
        await super().put(key, body, content_type)


@pytest.fixture
def objects(settings: StoreSettings) -> Iterator[Objects]:
    with contextlib.closing(Objects(settings)) as one:
        one.delete_prefix("inputs/alice/")
        one.delete_prefix("records/alice/")
        yield one


Submitting = Callable[..., Submitter]


@pytest.fixture
def store(objects: Objects) -> Store:
    return Store(objects)


@pytest.fixture
def submitting(desk: Desk, store: Store, settings: StoreSettings) -> Submitting:
    def one(objects: Store = store, **days: float) -> Submitter:
        ledger, known = Async(desk), settings.read_catalog()
        return Submitter(
            known=known, ledger=ledger, archive=Archive(ledger, store, max_bytes=None), objects=objects, router=Router(),
            send_ticket=lambda queue: None, limits=limits(), own_key=lambda url, tenant: None, refuses=lambda url: False,
            refuses_webhook=lambda url: False,
            budgets=Budgets({}, known),
            retention=Retention(days), pacing=Pacing(ledger),
        )  # fmt: skip

    return one


def _line(**changes: Any) -> submissions.Submission:
    picture = edits.SentPicture(data=b"a picture", content_type="image/png", transparent=False)
    edit = an_edit(model="flux-kontext-dev").model_copy(update={"references": (picture,)})
    return a_submission(edit=edit, idempotency_key="batch/b/1", **changes)


def _due_ms(desk: Desk) -> float | None:
    return desk.connection.zscore(keys.EXPIRING, PREFIX)  # type: ignore[return-value]


def test_its_pictures_stay_as_long_as_they_were_to(desk: Desk, objects: Objects, submitting: Submitting) -> None:
    for is_again in (False, True):
        accepted = asyncio.run(submitting().submit(_line(), CALLER, ids=IDS))
        assert accepted.replayed is is_again
        assert (_due_ms(desk) or 0) > desk.now_ms() + 20 * DAY_MS
    assert objects.get(f"{PREFIX}0") == b"a picture"


def test_its_pictures_stay_with_its_archived_record(desk: Desk, objects: Objects, submitting: Submitting) -> None:
    asyncio.run(submitting().submit(_line(), CALLER, ids=IDS))
    desk.finish(desk.claim())
    moved(desk, objects)
    assert not is_here(desk, IDS[0])
    assert asyncio.run(submitting().submit(_line(), CALLER, ids=IDS)).replayed
    assert _due_ms(desk) is None, "the archive's list says when they go"


def test_its_pictures_are_not_stored_again(desk: Desk, objects: Objects, store: Store, submitting: Submitting) -> None:
    asyncio.run(submitting().submit(_line(), CALLER, ids=IDS))
    store.is_down = True
    assert asyncio.run(submitting().submit(_line(), CALLER, ids=IDS)).replayed
    assert objects.get(f"{PREFIX}0") == b"a picture"


def test_pictures_of_a_line_that_was_cancelled_since_do_not_come_back(
    desk: Desk, objects: Objects, submitting: Submitting
) -> None:
    asyncio.run(submitting().submit(_line(), CALLER, ids=IDS))
    desk.run(records.cancel(IDS[0], CALLER.tenant))
    objects.delete_prefix(PREFIX)
    assert asyncio.run(submitting().submit(_line(), CALLER, ids=IDS)).replayed
    assert not objects.entries(PREFIX)


def test_pictures_of_what_was_never_accepted_go_within_an_hour(
    desk: Desk, store: Store, submitting: Submitting
) -> None:
    store.is_down = True
    with pytest.raises(errors.ObjectsUnavailableError):
        asyncio.run(submitting().submit(_line(), CALLER, ids=IDS))
    assert 0 < (_due_ms(desk) or 0) - desk.now_ms() <= 3_600_000


class Watched(Store):
    """Notes which prefixes the ledger is to have deleted when a picture comes."""

    def __init__(self, objects: Objects, desk: Desk) -> None:
        super().__init__(objects)
        self._desk = desk
        self.known: list[bool] = []

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        due_ms = self._desk.connection.zscore(keys.EXPIRING, key.removesuffix("0"))
        self.known.append(due_ms is not None and 0 < due_ms - self._desk.now_ms() <= 3_600_000)
        await super().put(key, body, content_type)


@pytest.mark.parametrize("ids", [(), IDS])
def test_a_picture_is_stored_only_where_it_would_be_deleted_if_this_process_died(
    desk: Desk, objects: Objects, settings: StoreSettings, submitting: Submitting, ids: tuple[str, ...]
) -> None:
    watched = Watched(objects, desk)
    submitter = submitting(objects=watched)

    async def submit_some() -> None:
        for _ in range(1 if ids else 5):
            await submitter.submit(_line().model_copy(update={"idempotency_key": None}), CALLER, ids=ids)

    asyncio.run(submit_some())
    assert watched.known == [True] * (1 if ids else 5)


@pytest.mark.parametrize("is_archived", [False, True])
def test_what_was_refused_is_refused_once(
    desk: Desk, objects: Objects, submitting: Submitting, is_archived: bool
) -> None:
    refused = _line(refused=submissions.Refusal(code="budget_exceeded", message="no"))
    asyncio.run(submitting().refuse(refused, CALLER, ids=IDS))
    assert desk.read(IDS[0]).error_code == "budget_exceeded"
    if is_archived:
        Archiver(desk.ledger, objects, after_s=1e-9).move()
        assert not is_here(desk, IDS[0])
    asyncio.run(submitting().refuse(refused, CALLER, ids=IDS))
    assert is_here(desk, IDS[0]) is not is_archived, "it is not made anew"


def test_what_was_accepted_is_not_refused_later(desk: Desk, submitting: Submitting) -> None:
    asyncio.run(submitting().submit(_line(), CALLER, ids=IDS))
    refused = _line(refused=submissions.Refusal(code="budget_exceeded", message="no"))
    asyncio.run(submitting().refuse(refused, CALLER, ids=IDS))
    assert desk.read(IDS[0]).status == "queued"


def test_what_is_refused_is_kept_no_longer_than_was_agreed(desk: Desk, submitting: Submitting) -> None:
    refused = _line(refused=submissions.Refusal(code="budget_exceeded", message="no"))
    asyncio.run(submitting(alice=1).refuse(refused, CALLER, ids=IDS))
    erased_ms = desk.connection.zscore(keys.ERASING, IDS[0])
    assert abs(erased_ms - desk.now_ms() - DAY_MS) < 60_000  # type: ignore[operator]


def test_generations_that_were_not_accepted_or_accepted_before_are_given_back_to_a_keys_rate(
    desk: Desk, store: Store, submitting: Submitting
) -> None:
    caller = access.Caller(tenant="alice", name="key", key_id="k", rights=access.Rights(per_minute=10))
    store.is_down = True
    with pytest.raises(errors.ObjectsUnavailableError):
        asyncio.run(submitting().submit(_line(count=4), caller))
    store.is_down = False
    first = asyncio.run(submitting().submit(_line(count=4), caller))
    with pytest.raises(errors.TooManyRequestsError):
        asyncio.run(submitting().submit(_line(count=4), caller))
    desk.connection.delete(f"{keys.API_KEY_PACE}k")
    again = asyncio.run(submitting().submit(_line(count=4), caller))
    assert (again.ids, again.replayed) == (first.ids, True)
    other = asyncio.run(submitting().submit(_line(count=4).model_copy(update={"idempotency_key": "other"}), caller))
    assert (len(other.ids), other.replayed) == (4, False)
    with pytest.raises(errors.TooManyRequestsError) as refused:
        desk.run(ledger_access.pace("k", 10, 1))
    assert 18 < refused.value.retry_after <= 24, "what it may at once, one, is due when all four are paid for"


def test_what_is_archived_while_its_retry_is_counted_is_brought_back(
    desk: Desk, objects: Objects, submitting: Submitting, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(submitting().submit(_line(), CALLER, ids=IDS))
    desk.fail(desk.claim(), errors.InternalError("broken"), rest_s=None)
    submitter = submitting()

    async def counted(caller: access.Caller, count: int) -> None:
        monkeypatch.undo()
        moved(desk, objects)
        assert not is_here(desk, IDS[0])

    monkeypatch.setattr(submitter._pacing, "generations", counted)
    asyncio.run(submitter.retry(IDS[0], CALLER))
    assert desk.claim().id == IDS[0]


def test_a_retry_that_is_refused_does_not_count(desk: Desk, submitting: Submitting) -> None:
    submitter, counts = submitting(), []

    async def counted(caller: access.Caller, count: int) -> None:
        counts.append(count)

    submitter._pacing.generations = counted  # type: ignore[assignment]
    asyncio.run(submitter.submit(_line(), CALLER, ids=IDS))
    counts.clear()
    with pytest.raises(errors.InvalidInputError):
        asyncio.run(submitter.retry(IDS[0], CALLER))
    assert counts == [1, -1], "it did not fail"
