"""What is deleted while somebody else changes it, or too late: nothing that is wanted goes, and nothing that is erased stays."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from storage import keys
from storage.contracts import errors
from storage.ledger import archive, erasure, records, webhooks
from storage.objects import Objects
from tests.stores.archived import (
    HOOK,
    NOW,
    Face,
    finished,
    grown_older,
    housekeeping,
    is_here,
    lists_of_expiry,
    moved,
    stored,
    sweep,
)  # fmt: skip
from tests.stores.conftest import Desk, limits
from workers.archiving import Archiver

DAY_MS = 86_400_000


@pytest.fixture
def face(desk: Desk, objects: Objects) -> Face:
    return Face(desk, objects)


class Paused:
    """Objects of a process that is paused once, before it calls a method."""

    def __init__(self, objects: Objects, method: str, meanwhile: Callable[[], None]) -> None:
        self._objects, self._method, self._meanwhile = objects, method, [meanwhile]

    def __getattr__(self, name: str) -> Any:
        if name == self._method and self._meanwhile:
            self._meanwhile.pop()()
        return getattr(self._objects, name)


def _broken(desk: Desk, tenant: str, **changes: object) -> str:
    """A generation that failed for good."""
    id_ = desk.accept(tenant, **changes)
    desk.fail(desk.claim(), errors.InternalError("broken"), rest_s=None)
    return id_


def _retried(desk: Desk, objects: Objects, face: Face, id_: str, tenant: str) -> str:
    """The key of the picture that a retry made."""
    asyncio.run(face.archive.change(records.retry(id_, tenant, limits()), id_, tenant))
    claim = desk.claim()
    objects.put(claim.result_key, b"picture", "image/webp")
    assert desk.finish(claim)
    return claim.result_key


def _is_time_for_all(desk: Desk) -> None:
    """Everything that is listed as expired at some time has expired, and nobody holds it any more."""
    for prefix, _ in list(desk.connection.zscan_iter(keys.EXPIRING)):
        desk.connection.zadd(keys.EXPIRING, {prefix: 1})


def _everything_expires(desk: Desk, objects: Objects) -> None:
    while desk.connection.exists(keys.EXPIRING):
        _is_time_for_all(desk)
        sweep(desk, Archiver(desk.ledger, objects, after_s=NOW), objects)


def test_a_retry_keeps_its_result_though_a_list_of_the_failure_is_worked_on(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    first, second = (_broken(desk, tenant) for _ in range(2))
    objects.put(f"results/{tenant}/{first}/1.webp", b"stored too late", "image/webp")
    archiver = Archiver(desk.ledger, objects, after_s=NOW)
    archiver.move()
    grown_older(desk, objects, lists_of_expiry(desk, objects)[False])
    pictures: list[str] = []
    slow = Paused(objects, "delete", lambda: pictures.append(_retried(desk, objects, face, second, tenant)))
    housekeeping(desk.ledger, slow, Archiver(desk.ledger, slow, after_s=NOW)).delete_expired()  # type: ignore[arg-type]
    assert face.read(second, tenant).status == "succeeded"
    assert sorted(stored(objects, tenant)) == sorted(
        [*(f"records/{tenant}/{id_}.json" for id_ in (first, second)), *pictures]
    )


def test_what_a_dead_archiver_left_is_not_deleted_under_the_next_one(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    id_ = finished(desk, tenant)
    (request,) = desk.run(archive.archivable(after_s=NOW, gather_s=NOW, lists=("expiry/a.json",)))
    objects.put(request.archived[0].key, request.archived[0].encoded(), "application/json")

    def taken_over() -> None:
        _is_time_for_all(desk)
        sweep(desk, Archiver(desk.ledger, objects, after_s=NOW), objects)
        _moved_at_once(desk, objects, id_)

    _is_time_for_all(desk)
    slow = Paused(objects, "delete", taken_over)
    housekeeping(desk.ledger, slow, Archiver(desk.ledger, slow, after_s=NOW)).delete_expired()  # type: ignore[arg-type]
    _moved_at_once(desk, objects, id_)
    assert not is_here(desk, id_)
    assert face.read(id_, tenant).status == "succeeded"


def _moved_at_once(desk: Desk, objects: Objects, id_: str) -> None:
    """As some minutes later, when the process that moved it before may not any more."""
    desk.connection.zadd(keys.ARCHIVING, {id_: 1}, xx=True)
    moved(desk, objects)


def test_one_that_cannot_be_written_holds_up_no_other(desk: Desk, objects: Objects, tenant: str) -> None:
    ids = [finished(desk, tenant) for _ in range(2)]

    def fails() -> None:
        raise errors.ObjectsUnavailableError("no")

    with pytest.raises(errors.ObjectsUnavailableError):
        Archiver(desk.ledger, Paused(objects, "put", fails), after_s=NOW).move()  # type: ignore[arg-type]
    moved(desk, objects)
    assert not any(is_here(desk, id_) for id_ in ids), "at once"


def test_what_a_dead_archiver_holds_is_passed_over(desk: Desk, objects: Objects, tenant: str) -> None:
    held = [finished(desk, tenant) for _ in range(3)]
    desk.run(archive.archivable(after_s=NOW, gather_s=NOW, lists=("expiry/a.json",)))
    ready = [finished(desk, tenant) for _ in range(2)]
    moved(desk, objects)
    assert [is_here(desk, id_) for id_ in (*held, *ready)] == [True, True, True, False, False]


def test_a_record_without_a_readable_limit_is_erased(desk: Desk, tenant: str) -> None:
    id_ = finished(desk, tenant)
    desk.connection.hset(keys.GENERATION + id_, "execution_limit_s", "damaged")
    assert desk.run(erasure.erase(id_, tenant)) is not None
    assert not is_here(desk, id_)


@pytest.mark.parametrize("before", ["cancelled", "failed", "requeued", "processing"])
def test_of_what_is_erased_no_late_result_stays(
    desk: Desk, objects: Objects, face: Face, tenant: str, before: str
) -> None:
    id_ = desk.accept(tenant)
    claim = desk.claim()
    if before == "cancelled":
        desk.run(records.cancel(id_, tenant))
    elif before in ("failed", "requeued"):
        desk.fail(claim, errors.InternalError("broken"), rest_s=None if before == "failed" else 0)
    asyncio.run(face.eraser.one(id_, tenant))
    desk.connection.zadd(keys.EXPIRING, {f"results/{tenant}/{id_}/": 1})
    sweep(desk, Archiver(desk.ledger, objects, after_s=NOW), objects)
    objects.put(claim.result_key, b"picture", "image/webp")
    assert not desk.finish(claim)
    _everything_expires(desk, objects)
    assert stored(objects, tenant) == []


@pytest.mark.parametrize("dies", [False, True])
def test_of_what_is_erased_no_late_record_stays(
    desk: Desk, objects: Objects, face: Face, tenant: str, dies: bool
) -> None:
    id_ = finished(desk, tenant)

    def erased() -> None:
        asyncio.run(face.eraser.one(id_, tenant))
        for prefix, _ in list(desk.connection.zscan_iter(keys.EXPIRING)):
            if str(prefix).startswith(("expiry/", "records/")) and not str(prefix).endswith(id_):
                desk.connection.zadd(keys.EXPIRING, {prefix: 1})
        sweep(desk, Archiver(desk.ledger, objects, after_s=NOW), objects)

    late = Paused(objects, "put", erased)
    if dies:
        (request,) = desk.run(archive.archivable(after_s=NOW, gather_s=NOW, lists=("expiry/a.json",)))
        late.put(request.archived[0].key, request.archived[0].encoded(), "application/json")
    else:
        Archiver(desk.ledger, late, after_s=NOW).move()  # type: ignore[arg-type]
    assert stored(objects, tenant) == [f"records/{tenant}/{id_}.json"]
    _everything_expires(desk, objects)
    assert stored(objects, tenant) == []
    lists = [objects.find(one.key) or b"" for one in objects.entries("expiry/")]
    assert not [one for one in lists if tenant.encode() in one]


def test_nothing_is_written_after_a_long_pause(
    desk: Desk, objects: Objects, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = finished(desk, tenant)
    monkeypatch.setattr(archive, "LAST_WRITE_S", -1.0)
    with pytest.raises(errors.ObjectsUnavailableError):
        moved(desk, objects)
    assert is_here(desk, id_)
    assert stored(objects, tenant) == []


def test_the_record_of_an_earlier_end_is_not_told_for_the_later_one(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    id_ = _broken(desk, tenant)
    moved(desk, objects)
    failed = objects.get(f"records/{tenant}/{id_}.json")
    _retried(desk, objects, face, id_, tenant)
    later = int(desk.connection.hget(keys.GENERATION + id_, "completed_ms")) + 5000  # type: ignore[arg-type]
    desk.connection.hset(keys.GENERATION + id_, "completed_ms", later)
    moved(desk, objects)
    objects.put(f"records/{tenant}/{id_}.json", failed, "application/json")
    with pytest.raises(errors.NotFoundError):
        face.read(id_, tenant)


def test_what_generations_of_a_request_share_stays_until_the_last_of_them_goes(
    desk: Desk, objects: Objects, face: Face, tenant: str
) -> None:
    prefix = f"inputs/{tenant}/x/"
    desk.receive(tenant, count=2, inputs_prefix=prefix, webhook=HOOK)
    objects.put(f"{prefix}0", b"input", "image/png")
    speaker, other = desk.claim(), desk.claim()
    desk.finish(speaker)
    desk.fail(other, errors.InternalError("broken"), rest_s=None)
    for due in desk.run(webhooks.due(held_ms=60_000)):
        desk.run(webhooks.called(due, again_ms=None, outcome="200", took_ms=1))
    moved(desk, objects)
    old = lists_of_expiry(desk, objects)[True]
    # Five days later the other is tried anew, and fails anew.
    asyncio.run(face.archive.change(records.retry(other.id, tenant, limits()), other.id, tenant))
    desk.fail(desk.claim(), errors.InternalError("broken"), rest_s=None)
    for due in desk.run(webhooks.due(held_ms=60_000)):
        desk.run(webhooks.called(due, again_ms=None, outcome="200", took_ms=1))
    ended = int(desk.connection.hget(keys.GENERATION + other.id, "completed_ms")) + 5 * DAY_MS  # type: ignore[arg-type]
    desk.connection.hset(keys.GENERATION + other.id, "completed_ms", ended)
    moved(desk, objects)
    assert not is_here(desk, other.id)
    # Three more, and what was listed at first is due.
    grown_older(desk, objects, old)
    sweep(desk, Archiver(desk.ledger, objects, after_s=NOW), objects)
    assert objects.find(f"{prefix}0") == b"input"
    asyncio.run(face.archive.change(records.retry(other.id, tenant, limits()), other.id, tenant))
    desk.finish(desk.claim())
    assert [(one.id, one.moment) for one in desk.run(webhooks.due(held_ms=60_000))] == [(speaker.id, "completed")]
