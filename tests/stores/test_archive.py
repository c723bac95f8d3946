"""Finished generations leave Redis for the object store, whichever process dies on the way, and come back to be changed."""

import asyncio
import contextlib
import itertools
import json
import uuid
from typing import Any

import pytest

from storage import connections, keys
from storage import events as events_module
from storage.contracts import errors
from storage.events import Coverage, EventLog
from storage.ledger import archive, erasure, expiry, records, webhooks
from storage.ledger.archive import lapses
from storage.ledger.records import lists
from storage.objects import Objects
from storage.settings import StoreSettings
from tests.stores.archived import HOOK, NOW, Face, finished, grown_older, is_here, lists_of_expiry, moved, stored, sweep
from tests.stores.conftest import Desk, an_edit, limits
from workers import archiving
from workers.archiving import Archiver


class Killed(BaseException):
    """The process is gone."""


class Mortal:
    """Passes a number of calls on, and dies instead of the next, or right after it."""

    def __init__(self, target: Any, steps: "itertools.count[int] | None" = None, dies_at: float = float("inf")) -> None:
        self._target = target
        self._steps = steps or itertools.count()
        self._dies_at = dies_at

    def __getattr__(self, name: str) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            number = next(self._steps)
            if number == self._dies_at:
                raise Killed
            done = getattr(self._target, name)(*arguments, **named)
            if number + 0.5 == self._dies_at:
                raise Killed
            return done

        return step


@pytest.fixture
def face(desk: Desk, objects: Objects) -> Face:
    return Face(desk, objects)


def test_a_finished_generation_leaves_and_reads_as_before(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    id_ = finished(desk, tenant, group="two", webhook=HOOK)
    before = face.read(id_, tenant)
    moved(desk, objects)
    assert not is_here(desk, id_)
    assert face.read(id_, tenant) == before
    assert face.read(id_, tenant).etag == before.etag
    with pytest.raises(errors.NotFoundError):
        face.read(id_, "another")
    for unknown in (str(uuid.uuid4()), "../other", "a/b", ""):
        with pytest.raises(errors.NotFoundError):
            face.read(unknown, tenant)


def test_what_is_unfinished_or_ended_a_moment_ago_stays(desk: Desk, objects: Objects, tenant: str) -> None:
    ended, waiting = finished(desk, tenant), desk.accept(tenant)
    Archiver(desk.ledger, objects, after_s=60).move()
    assert is_here(desk, ended)
    moved(desk, objects)
    assert not is_here(desk, ended)
    assert is_here(desk, waiting)


def test_few_wait_for_others_to_go_with(desk: Desk, objects: Objects, tenant: str) -> None:
    id_ = finished(desk, tenant)
    for gather_s, goes in ((60.0, False), (NOW, True)):
        ready = desk.run(archive.archivable(after_s=NOW, gather_s=gather_s, lists=()))
        assert [one.id for request in ready for one in request.archived] == [id_] * goes


def test_a_request_goes_as_a_whole(desk: Desk, objects: Objects, face: Face, tenant: str) -> None:
    first, second, third = desk.receive(tenant, count=3, webhook=HOOK).ids
    for _ in range(2):
        desk.finish(desk.claim())
    moved(desk, objects)
    assert all(is_here(desk, one) for one in (first, second, third))
    desk.finish(desk.claim())
    moved(desk, objects)
    assert not any(is_here(desk, one) for one in (first, second, third))
    assert len(asyncio.run(face.reader.request(second, tenant))) == 3


def test_what_is_left_of_a_request_goes_when_its_unfinished_rest_is_erased(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    ids = desk.receive(tenant, count=2).ids
    claim = desk.claim()
    desk.finish(claim)
    moved(desk, objects)
    assert is_here(desk, claim.id), "the other is unfinished"
    (unfinished,) = set(ids) - {claim.id}
    desk.run(erasure.erase(unfinished, tenant))
    moved(desk, objects)
    assert not is_here(desk, claim.id)
    assert face.read(claim.id, tenant).id == claim.id
    assert desk.connection.hget(keys.BYTES, tenant) is None


def test_a_result_is_known_to_be_published_though_its_record_left_before_the_answer_came(
    desk: Desk, objects: Objects, tenant: str
) -> None:
    desk.accept(tenant)
    claim = desk.claim()
    desk.finish(claim)
    assert desk.finish(claim) is True, "asked again"
    moved(desk, objects)
    assert desk.finish(claim) is None
    desk.accept(tenant)
    lost = desk.claim()
    desk.fail(lost, errors.InternalError("broken"))
    assert desk.finish(lost) is False


def test_lists_are_the_same_before_and_after(desk: Desk, objects: Objects, face: Face, tenant: str) -> None:
    for number in range(7):
        edit = an_edit(prompt=f"Make {'RED' if number % 2 else 'blue'} it", model="quick" if number % 3 else "slow")
        id_ = desk.accept(
            tenant, edit=edit, group="g|1" if number < 4 else None, namespace="ns" if number % 2 else None
        )
        claim = desk.claim()
        if number == 5:
            desk.fail(claim, errors.InternalError("broken"), rest_s=None)
        elif number == 6:
            desk.run(records.cancel(id_, tenant))
        else:
            desk.finish(claim)
        if number == 2:
            early = face.ids(tenant)
            moved(desk, objects)
            assert face.ids(tenant) == early
    desk.accept(tenant)
    wanted: list[dict[str, Any]] = [
        {}, {"limit": 2}, {"status": "succeeded"}, {"status": "failed"}, {"status": "cancelled"}, {"status": "queued"},
        {"model": "slow"}, {"group": "g|1"}, {"group": "none"}, {"namespace": "ns"}, {"namespace": tenant}, {"words": "red"},
        {"words": "red", "limit": 1}, {"status": "succeeded", "model": "quick", "group": "g|1"},
    ]  # fmt: skip
    before = [face.ids(tenant, **one) for one in wanted]
    assert [len(one) for one in before] == [8, 8, 5, 1, 1, 1, 3, 4, 0, 3, 5, 3, 3, 2]
    moved(desk, objects)
    assert desk.connection.zcard(keys.HISTORY + tenant) == 1
    # Others are not read for it.
    named: dict[str, Any] = {"below": None, "limit": 100, "active_only": False}
    for matching, count in (
        ({"status": "failed"}, 1),
        ({"model": "slow"}, 3),
        ({"group": "g|1"}, 4),
        ({"namespace": "ns"}, 3),
    ):
        assert len(desk.run(lists.list_(tenant, matching=matching, **named)).entries) == count, matching
    assert [face.ids(tenant, **one) for one in wanted] == before


@pytest.mark.parametrize("half", [0, 0.5], ids=["before", "after"])
def test_a_death_between_any_two_steps_loses_and_doubles_nothing(
    desk: Desk, objects: Objects, face: Face, tenant: str, half: float
) -> None:
    for number in itertools.count():
        ids = [*desk.receive(tenant, count=2).ids, desk.accept(tenant)]
        for _ in ids:
            desk.finish(desk.claim())
        expected = {id_: face.read(id_, tenant) for id_ in ids}
        listed = face.ids(tenant)
        steps, dies_at = itertools.count(), number + half
        archiver = Archiver(Mortal(desk.ledger, steps, dies_at), Mortal(objects, steps, dies_at), after_s=NOW)
        with contextlib.suppress(Killed):
            archiver.move()
        assert {id_: face.read(id_, tenant) for id_ in ids} == expected, f"killed at step {dies_at}"
        assert face.ids(tenant) == listed
        # Its hold ends, what it wrote is deleted, and another takes over.
        for held, _ in desk.connection.zscan_iter(keys.EXPIRING):
            if str(held).startswith(("records/", lapses.LISTS)) and is_here(desk, ids[0]):
                desk.connection.zadd(keys.EXPIRING, {str(held): 1})
        desk.connection.zadd(keys.ARCHIVING, dict.fromkeys(ids, 1), xx=True)
        while (held := desk.run(expiry.expired())) is not None:
            objects.delete_prefix(held.prefix)
            desk.run(expiry.forget(held))
        moved(desk, objects)
        assert not any(is_here(desk, id_) for id_ in ids)
        assert {id_: face.read(id_, tenant) for id_ in ids} == expected
        assert face.ids(tenant) == listed
        assert not any(str(one).startswith("records/") for one, _ in desk.connection.zscan_iter(keys.EXPIRING))
        if next(steps) <= number:
            break
    assert number == 8, "hand out, three records, two lists, commit, and a look for more"


def test_two_that_move_at_a_time_do_not_meet(desk: Desk, objects: Objects, face: Face, tenant: str) -> None:
    id_ = finished(desk, tenant)
    (mine,) = desk.run(archive.archivable(after_s=NOW, gather_s=NOW, lists=("expiry/a.json",)))
    assert desk.run(archive.archivable(after_s=NOW, gather_s=NOW, lists=("expiry/b.json",))) == ()
    objects.put(mine.archived[0].key, mine.archived[0].encoded(), "application/json")
    told = json.dumps([one.model_dump(mode="json") for one in mine.lapses()])
    objects.put("expiry/a.json", told.encode(), "application/json")
    assert desk.run(archive.archived([mine], {"expiry/a.json": desk.now_ms() + 10_000})) == (True,)
    # One that was away for too long comes back: what it wrote is the other's, and stays.
    assert desk.run(archive.archived([mine], {"expiry/a.json": desk.now_ms() + 10_000})) == (False,)
    sweep(desk, Archiver(desk.ledger, objects, after_s=NOW), objects)
    assert face.read(id_, tenant).id == id_
    assert list(lists_of_expiry(desk, objects).values()) == ["expiry/a.json"], "it still tells when all of it goes"


def test_what_somebody_is_deleting_is_not_moved(desk: Desk, objects: Objects, face: Face, tenant: str) -> None:
    id_ = finished(desk, tenant)
    (request,) = desk.run(archive.archivable(after_s=NOW, gather_s=NOW, lists=("expiry/a.json",)))
    lists = {"expiry/a.json": desk.now_ms() + 10_000}
    key = request.archived[0].key
    objects.put(key, request.archived[0].encoded(), "application/json")
    desk.connection.zadd(keys.EXPIRING, {key: 1, "expiry/a.json": 1})
    deleting = [desk.run(expiry.expired()) for _ in range(2)]
    assert desk.run(archive.archived([request], lists)) == (False,)
    for held in deleting:
        assert held is not None
        objects.delete_prefix(held.prefix)
        desk.run(expiry.forget(held))
    assert face.read(id_, tenant).id == id_


def test_one_whose_hold_is_over_moves_nothing(desk: Desk, objects: Objects, tenant: str) -> None:
    id_ = finished(desk, tenant)
    (request,) = desk.run(archive.archivable(after_s=NOW, gather_s=NOW, lists=("expiry/a.json",), hold_s=0))
    assert desk.run(archive.archived([request], {})) == (False,)
    assert is_here(desk, id_)


@pytest.mark.parametrize("change", ["retried", "erased", "drained"])
def test_what_changes_on_the_way_stays(desk: Desk, objects: Objects, face: Face, tenant: str, change: str) -> None:
    id_ = desk.accept(tenant)
    desk.fail(desk.claim(), errors.InternalError("broken"), rest_s=None)
    (request,) = desk.run(archive.archivable(after_s=NOW, gather_s=NOW, lists=("expiry/a.json",)))
    if change == "retried":
        desk.run(records.retry(id_, tenant, limits()))
    elif change == "erased":
        desk.run(erasure.erase(id_, tenant))
    else:
        assert desk.run(records.drain(id_, tenant))
    objects.put(request.archived[0].key, request.archived[0].encoded(), "application/json")
    assert desk.run(archive.archived([request], {"expiry/a.json": desk.now_ms() + 1})) == (False,)
    assert is_here(desk, id_) == (change != "erased")
    if change == "erased":
        with pytest.raises(errors.NotFoundError):
            face.read(id_, tenant)
    due = set()
    while (one := desk.run(expiry.expired())) is not None:
        due.add(one.prefix)
    # What was written of it goes, or is written over soon.
    again = desk.run(archive.archivable(after_s=NOW, gather_s=NOW, lists=()))
    assert (request.archived[0].key in due, len(again)) == ((False, 1) if change == "drained" else (True, 0))


def test_a_retry_brings_a_request_back_and_its_end_is_archived_anew(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    first, second = desk.receive(tenant, count=2, webhook=HOOK).ids
    desk.finish(desk.claim())
    desk.fail(desk.claim(), errors.InternalError("broken"), rest_s=None)
    moved(desk, objects)
    queued = asyncio.run(face.archive.change(records.retry(second, tenant, limits()), second, tenant))
    assert queued.queue
    assert is_here(desk, first), "its webhook speaks for all"
    assert face.read(second, tenant).status == "queued"
    desk.finish(desk.claim())
    assert [one.id for one in desk.run(webhooks.due(held_ms=1)) if one.is_here] == [first]
    moved(desk, objects)
    assert face.read(second, tenant).status == "succeeded"
    assert sorted(face.ids(tenant)) == sorted([first, second])


def test_a_webhook_that_is_due_of_what_is_archived_is_found(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    id_ = finished(desk, tenant, webhook=HOOK)
    moved(desk, objects)
    (due,) = desk.run(webhooks.due(held_ms=60_000))
    assert (due.id, due.tenant, due.is_here) == (id_, tenant, False)
    assert asyncio.run(face.archive.restore(due.id, due.tenant))
    desk.run(webhooks.put_off(due, by_s=0))
    (due,) = desk.run(webhooks.due(held_ms=60_000))
    assert due.generation.submission.webhook == HOOK


def test_nothing_comes_back_beyond_a_tenants_bytes(desk: Desk, objects: Objects, tenant: str) -> None:
    id_ = finished(desk, tenant)
    moved(desk, objects)
    desk.accept(tenant)
    with pytest.raises(errors.TooManyActiveError, match="MiB"):
        asyncio.run(Face(desk, objects, max_bytes=1).archive.restore(id_, tenant))
    assert not is_here(desk, id_)


def test_bytes_are_counted_while_a_record_is_here(desk: Desk, objects: Objects, face: Face, tenant: str) -> None:
    def held() -> int:
        return int(desk.connection.hget(keys.BYTES, tenant) or 0)  # type: ignore[arg-type]

    most = limits(max_bytes=20_000)
    ids: list[str] = []
    with contextlib.suppress(errors.TooManyActiveError):
        while len(ids) < 100:
            ids.append(desk.accept(tenant, limits=most))
    assert 2 <= len(ids) < 10
    assert 10_000 < held() <= 20_000
    # Over is not gone: cancelling in a loop fills nothing.
    for id_ in ids:
        desk.run(records.cancel(id_, tenant))
    assert held() > 10_000
    with pytest.raises(errors.TooManyActiveError):
        desk.accept(tenant, limits=most)
    moved(desk, objects)
    assert held() == 0
    asyncio.run(face.archive.restore(ids[0], tenant))
    assert held() > 0
    asyncio.run(face.eraser.one(ids[0], tenant))
    desk.run(erasure.erase(desk.accept(tenant), tenant))
    assert held() == 0
    assert not desk.connection.hexists(keys.BYTES, tenant)


def test_what_is_erased_of_the_archive_is_gone(desk: Desk, objects: Objects, face: Face, tenant: str) -> None:
    first, second = desk.receive(tenant, count=2).ids
    third = desk.accept(tenant)
    for _ in range(3):
        claim = desk.claim()
        objects.put(claim.result_key, b"picture", "image/webp")
        desk.finish(claim)
    moved(desk, objects)
    erased = asyncio.run(face.eraser.one(first, tenant))
    assert (erased.generations, erased.objects) == (1, 1)
    again = desk.connection.zscore(keys.EXPIRING, f"results/{tenant}/{first}/")
    assert again is not None
    assert 0 < again - desk.now_ms() <= 10_000, "by housekeeping, which is not to be quicker than who counts them"
    assert not [one for one in stored(objects, tenant) if first in one]
    assert face.read(second, tenant).siblings == ()
    assert sorted(face.ids(tenant)) == sorted([second, third])
    # Somebody who read it before comes too late to bring it back.
    late = archive.Archived(record={"id": first, "tenant": tenant, "sequence": "1"}, until_ms=desk.now_ms() + 10_000)
    assert desk.run(archive.restore([late])) == 0
    assert asyncio.run(face.eraser.everything(tenant)).generations == 2
    assert stored(objects, tenant) == []
    assert face.ids(tenant) == []


def test_results_go_after_seven_days_and_records_after_eight(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    desk.accept(tenant, inputs_prefix=f"inputs/{tenant}/x/")
    claim = desk.claim()
    objects.put(claim.result_key, b"picture", "image/webp")
    objects.put(f"inputs/{tenant}/x/1", b"input", "image/webp")
    desk.finish(claim)
    archiver = Archiver(desk.ledger, objects, after_s=NOW)
    archiver.move()
    lists, day_ms = lists_of_expiry(desk, objects), 86_400_000
    for is_end, days in ((False, 7), (True, 8)):
        due_ms = int(desk.connection.zscore(keys.EXPIRING, lists[is_end]))  # type: ignore[arg-type]
        assert abs(due_ms - desk.now_ms() - days * day_ms) < 60_000
    grown_older(desk, objects, lists[False])
    sweep(desk, archiver, objects)
    assert stored(objects, tenant) == [f"records/{tenant}/{claim.id}.json", f"inputs/{tenant}/x/1"]
    assert face.ids(tenant) == [claim.id]
    grown_older(desk, objects, lists[True])
    sweep(desk, archiver, objects)
    assert stored(objects, tenant) == []
    assert face.ids(tenant) == []
    assert objects.find(lists[True]) is None
    assert desk.connection.zcard(keys.EXPIRING) == 0


def test_a_list_that_is_no_longer_true_deletes_nothing(desk: Desk, objects: Objects, face: Face, tenant: str) -> None:
    id_ = finished(desk, tenant)
    archiver = Archiver(desk.ledger, objects, after_s=NOW)
    archiver.move()
    old = lists_of_expiry(desk, objects)
    # Changed, and archived again with another end.
    asyncio.run(face.archive.restore(id_, tenant))
    completed = int(desk.connection.hget(keys.GENERATION + id_, "completed_ms"))  # type: ignore[arg-type]
    for when in ("here", "archived again"):
        grown_older(desk, objects, old[True])
        body = objects.get(old[True])
        sweep(desk, archiver, objects)
        objects.put(old[True], body, "application/json")
        assert face.read(id_, tenant).id == id_, when
        desk.connection.hset(keys.GENERATION + id_, "completed_ms", completed + 5000) if when == "here" else None
        archiver.move()


def test_what_was_agreed_to_be_erased_early_does_not_wait_for_what_it_left_with(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    day_ms = 86_400_000
    usual, early, later = (finished(desk, tenant, kept_s=kept_s) for kept_s in (None, 86_400.0, 2 * 86_400.0))
    archiver = Archiver(desk.ledger, objects, after_s=NOW)
    archiver.move()
    assert not any(is_here(desk, id_) for id_ in (usual, early, later))
    key = lists_of_expiry(desk, objects)[True]
    for gone, days in ((early, 1), (later, 2)):
        due_ms = int(desk.connection.zscore(keys.EXPIRING, key))  # type: ignore[arg-type]
        assert abs(due_ms - desk.now_ms() - days * day_ms) < 60_000
        grown_older(desk, objects, key, gone)
        sweep(desk, archiver, objects)
        assert is_here(desk, gone), "it is erased by the next sweep"
    assert not is_here(desk, usual)
    assert face.read(usual, tenant).id == usual
    due_ms = int(desk.connection.zscore(keys.EXPIRING, key))  # type: ignore[arg-type]
    assert abs(due_ms - desk.now_ms() - 8 * day_ms) < 60_000
    grown_older(desk, objects, key, usual)
    sweep(desk, archiver, objects)
    assert objects.find(key) is None
    assert usual not in face.ids(tenant)


def test_what_was_agreed_to_be_erased_early_is_erased_with_its_events(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    id_ = finished(desk, tenant, kept_s=7200.0)
    soon = finished(desk, tenant, kept_s=600.0)
    archiver = Archiver(desk.ledger, objects, after_s=NOW)
    archiver.move()
    assert (is_here(desk, id_), is_here(desk, soon)) == (False, True)
    before = face.read(id_, tenant)
    assert before.times.kept_s == 7200
    key = lists_of_expiry(desk, objects)[True]
    (lapse,) = lapses.lapses_of(objects.get(key))
    assert abs(lapse.due_ms - desk.now_ms() - 7_200_000) < 60_000
    record = archive.Archived.read(objects.get(f"records/{tenant}/{id_}.json"))
    late = record.model_copy(update={"erase_ms": desk.now_ms() - 1})
    objects.put(record.key, late.encoded(), "application/json")
    archiver.lapse(key)
    assert not is_here(desk, id_), "it is not time"
    grown_older(desk, objects, key, id_)
    archiver.lapse(key)
    assert desk.run(erasure.over(10)) == ((id_, tenant),)
    desk.run(erasure.erase(id_, tenant, only_due=True))
    assert id_ not in json.dumps(desk.connection.xrange(keys.EVENTS + tenant))
    with pytest.raises(errors.NotFoundError):
        face.read(id_, tenant)


def test_parked_ones_stay_where_operators_look(desk: Desk, objects: Objects, tenant: str) -> None:
    id_ = desk.accept(tenant)
    for _ in range(3):
        desk.fail(desk.claim(), errors.ObjectsUnavailableError("gone"))
    moved(desk, objects)
    assert is_here(desk, id_)
    assert desk.connection.zscore(keys.PARKED, id_) is not None
    desk.connection.zadd(keys.PARKED, {id_: desk.now_ms() - 8 * 86_400_000})
    desk.connection.zadd(keys.ARCHIVING, {id_: 1})
    moved(desk, objects)
    assert not is_here(desk, id_)


def test_what_finished_before_this_release_is_archived_too(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    id_ = finished(desk, tenant)
    # As version 2 had it.
    record: dict[str, str] = desk.connection.hgetall(keys.GENERATION + id_)  # type: ignore[assignment]
    edit = json.dumps(json.loads(record["submission"])["edit"])
    desk.connection.hset(keys.GENERATION + id_, mapping={"edit": edit, "submitted": "{}", "version": "2"})
    desk.connection.hdel(keys.GENERATION + id_, "submission", "bytes")
    desk.connection.delete(keys.ARCHIVING)
    before = face.read(id_, tenant)
    archiver = Archiver(desk.ledger, objects, after_s=NOW)
    for _ in range(100):
        archiver.adopt()
    archiver.move()
    assert not is_here(desk, id_)
    assert face.read(id_, tenant) == before
    assert face.ids(tenant, words="blue") == [id_]


def test_a_reader_of_events_that_went_with_their_generations_is_told(
    desk: Desk, objects: Objects, settings: StoreSettings, tenant: str
) -> None:
    old = desk.now_ms() - 2 * archive.EVENTS_KEPT_S * 1000
    for number in range(300):
        desk.connection.xadd(keys.EVENTS + tenant, {"type": "old"}, id=f"{old}-{number + 1}")
    recent = finished(desk, tenant)

    async def is_complete(cursor: str) -> bool:
        async with contextlib.aclosing(connections.connect_async(settings)) as connection:
            return (await EventLog(connection, connection).coverage(tenant, cursor)).complete

    before = f"{old}-1"
    assert asyncio.run(is_complete(before))
    moved(desk, objects)
    assert not asyncio.run(is_complete(before))
    told: list[Any] = desk.connection.xrange(keys.EVENTS + tenant)  # type: ignore[assignment]
    assert len(told) < 200
    assert sum(fields.get("id") == recent for _, fields in told) == 3
    # Even where nothing is left.
    desk.connection.xtrim(keys.EVENTS + tenant, maxlen=0, approximate=False)
    assert not asyncio.run(is_complete(before))


def test_a_reader_misses_nothing_of_what_was_erased(desk: Desk, settings: StoreSettings, tenant: str) -> None:
    desk.run(erasure.erase(finished(desk, tenant), tenant))
    cursor = f"{desk.now_ms() - 1}-0"
    desk.run(erasure.erase(finished(desk, tenant), tenant))

    async def coverage() -> Coverage:
        async with contextlib.aclosing(connections.connect_async(settings)) as connection:
            return await EventLog(connection, connection).coverage(tenant, cursor)

    assert asyncio.run(coverage()).complete, "nothing is left"
    finished(desk, tenant)
    assert asyncio.run(coverage()).complete, "what is left began later"
    # Of a log that was trimmed as often as it was added to, nobody knows.
    with desk.connection.pipeline(transaction=False) as pipeline:
        for _ in range(keys.LOG_LENGTH):
            pipeline.xadd(keys.EVENTS + tenant, {"type": "one"}, maxlen=100, approximate=False)
        pipeline.execute()
    assert not asyncio.run(coverage()).complete


def test_little_is_left_in_redis(desk: Desk, objects: Objects, tenant: str) -> None:
    def used() -> int:
        # Events are bounded by the hour and samples by the target, not by how many are over.
        bounded = (keys.EVENTS, keys.LIVE_EVENTS, keys.SAMPLES)
        names = [str(one) for one in desk.connection.scan_iter() if not str(one).startswith(bounded)]
        return sum(int(desk.connection.memory_usage(one, samples=0) or 0) for one in names)  # type: ignore[arg-type]

    finished(desk, tenant)
    moved(desk, objects)
    before, count = used(), 400
    for _ in range(count):
        desk.accept(tenant, inputs_prefix=f"inputs/{tenant}/{uuid.uuid4()}/")
        desk.finish(desk.claim())
    moved(desk, objects)
    assert desk.connection.zcard(keys.ARCHIVE + tenant) == count + 1
    assert (used() - before) / count <= 150


def test_of_two_that_bring_it_back_both_are_told_that_it_is_here(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    id_ = finished(desk, tenant)
    moved(desk, objects)
    read = archive.Archived.read(objects.get(f"records/{tenant}/{id_}.json"))
    assert [desk.run(archive.restore([read])) for _ in range(2)] == [1, 1]
    assert len(desk.connection.zrange(keys.HISTORY + tenant, 0, -1)) == 1


def test_both_webhooks_of_what_is_archived_are_told(desk: Desk, objects: Objects, face: Face, tenant: str) -> None:
    finished(desk, tenant, webhook=HOOK.model_copy(update={"moments": ("start", "completed")}))
    moved(desk, objects)
    due = desk.run(webhooks.due(held_ms=60_000))
    assert sorted(one.moment for one in due) == ["completed", "start"]
    for one in due:
        assert asyncio.run(face.archive.restore(one.id, one.tenant)), one.moment


def test_what_was_read_before_it_changed_does_not_come_back(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    id_ = desk.accept(tenant)
    desk.fail(desk.claim(), errors.InternalError("broken"), rest_s=None)
    moved(desk, objects)
    stale = archive.Archived.read(objects.get(f"records/{tenant}/{id_}.json"))
    # Its end has another second.
    stale = stale.model_copy(update={"until_ms": stale.until_ms - 1000})
    asyncio.run(face.archive.change(records.retry(id_, tenant, limits()), id_, tenant))
    desk.finish(desk.claim())
    moved(desk, objects)
    assert desk.run(archive.restore([stale])) == 0
    assert face.read(id_, tenant).status == "succeeded"


class Between:
    """A store of records: once, another process brings a record back between the reading and the look at the index."""

    def __init__(self, face: Face, id_: str, tenant: str) -> None:
        self.face, self.id_, self.tenant, self.is_done = face, id_, tenant, False
        self._find = face.archive._objects.find

    async def find(self, key: str) -> bytes | None:
        body = await self._find(key)
        if not self.is_done:
            self.is_done = True
            await self.face.archive.restore(self.id_, self.tenant)
        return body


@pytest.mark.parametrize("what", ["read", "cancel", "erase"])
def test_what_comes_back_meanwhile_is_there(
    desk: Desk, objects: Objects, face: Face, tenant: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    id_ = finished(desk, tenant)
    moved(desk, objects)
    monkeypatch.setattr(face.archive, "_objects", Between(face, id_, tenant))
    if what == "read":
        assert face.read(id_, tenant).id == id_
    elif what == "cancel":
        assert asyncio.run(face.archive.cancel(id_, tenant)) == "terminal"
    else:
        assert asyncio.run(face.eraser.one(id_, tenant)).generations == 1


def test_an_object_store_that_is_slow_is_given_less_at_a_time(
    desk: Desk, objects: Objects, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [finished(desk, tenant) for _ in range(3)]
    monkeypatch.setattr(archive, "HOLD_S", 0)
    monkeypatch.setattr(archiving, "MOST_MOVED", 1)
    Archiver(desk.ledger, objects, after_s=NOW).move()
    assert [is_here(desk, id_) for id_ in ids].count(False) == 1


def test_at_the_end_what_a_worker_stored_too_late_goes_too(desk: Desk, objects: Objects, tenant: str) -> None:
    id_ = desk.accept(tenant)
    desk.fail(desk.claim(), errors.InternalError("broken"), rest_s=None)
    (request,) = desk.run(archive.archivable(after_s=NOW, gather_s=NOW, lists=("expiry/a.json",)))
    (end,) = [one for one in request.lapses() if one.is_end]
    assert f"results/{tenant}/{id_}/" in end.prefixes


def test_bytes_of_records_that_ended_with_their_time_are_not_held_against_a_tenant(desk: Desk, tenant: str) -> None:
    desk.connection.hset(keys.BYTES, tenant, 10**9)
    id_ = desk.accept(tenant)
    assert desk.connection.hget(keys.BYTES, tenant) == desk.connection.hget(keys.GENERATION + id_, "bytes")


def test_where_nothing_ever_happened_the_servers_clock_gives_the_newest_cursor(
    desk: Desk, settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.connection.delete(keys.LIVE_EVENTS)
    monkeypatch.setattr(events_module.time, "time", lambda: 5e9)

    async def latest() -> str:
        async with contextlib.aclosing(connections.connect_async(settings)) as connection:
            return await EventLog(connection, connection).latest()

    before = desk.now_ms()
    milliseconds, _, number = asyncio.run(latest()).partition("-")
    assert before - 1 <= int(milliseconds) < desk.now_ms() + 1
    assert number == "0"
