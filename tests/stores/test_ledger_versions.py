"""While a fleet is upgraded, workers meet records of releases they do not know: nothing is lost, parked or starved for it."""

import json
from collections.abc import Sequence

import pytest

from storage import fleet, keys
from storage.contracts import errors, generations
from storage.ledger import claims, presence, records, recovery
from tests.conftest import eventually
from tests.stores.conftest import QUEUE, Desk, a_result, an_edit, limits

Status = generations.Status
OLD = claims.Claimant(worker="old")
VERSION = generations.RECORD_VERSION


def _claim(desk: Desk, newest: int, queues: Sequence[str] = (QUEUE,), **more: int) -> object:
    return desk.run(claims.claim(OLD, 60_000, queues, newest=newest, **more))  # type: ignore[arg-type]


def _claimed(desk: Desk, newest: int = VERSION, queues: Sequence[str] = (QUEUE,), **more: int) -> str:
    claim = _claim(desk, newest, queues, **more)
    assert isinstance(claim, generations.Claim)
    return claim.id


def _pass_ms(desk: Desk, milliseconds: int) -> None:
    since = desk.now_ms()
    eventually(lambda: desk.now_ms() - since > milliseconds)


def _from_a_newer_release(desk: Desk, tenant: str = "alice", queue: str = QUEUE) -> str:
    id_ = desk.accept(tenant, queue=queue)
    edit = json.loads(an_edit().model_dump_json()) | {"field_of_tomorrow": 1}
    desk.connection.hset(keys.GENERATION + id_, mapping={"version": VERSION + 1, "edit": json.dumps(edit)})
    return id_


def _unreadable(desk: Desk, tenant: str = "alice") -> str:
    """Of this version by its number, and yet with a field that nobody knows."""
    id_ = _from_a_newer_release(desk, tenant)
    desk.connection.hset(keys.GENERATION + id_, "version", VERSION)
    return id_


def test_what_a_newer_release_wrote_is_left_to_workers_that_read_it(desk: Desk) -> None:
    id_ = _from_a_newer_release(desk)
    assert _claim(desk, VERSION) is None
    found = desk.read(id_)
    assert (found.status, found.attempts, found.position) == (Status.QUEUED, 0, 0)
    assert isinstance(_claim(desk, VERSION + 1), claims.Unreadable), "a worker that says it reads it is given it"


def test_older_work_behind_it_is_served_meanwhile(desk: Desk) -> None:
    newer = [_from_a_newer_release(desk, tenant) for tenant in ("alice", "bob")]
    older = [desk.accept("alice"), desk.accept("bob"), desk.accept("carol")]
    served = [_claim(desk, VERSION) for _ in range(3)]
    assert {claim.id for claim in served} == set(older)  # type: ignore[attr-defined]
    assert _claim(desk, VERSION) is None
    for id_, tenant in zip(newer, ("alice", "bob"), strict=True):
        assert desk.read(id_, tenant).status is Status.QUEUED


def test_older_work_is_served_however_much_newer_work_lies_before_it(desk: Desk) -> None:
    for _ in range(150):
        _from_a_newer_release(desk)
    older = desk.accept()
    assert _claimed(desk) == older


def test_no_mass_of_newer_work_keeps_a_tenant_with_older_work_from_its_turn(desk: Desk) -> None:
    ids = [id_ for _ in range(21) for id_ in desk.receive(count=100, limits=limits(max_active=10_000)).ids]
    with desk.connection.pipeline() as marked:
        for id_ in ids:
            marked.hset(keys.GENERATION + id_, "version", VERSION + 1)
        marked.execute()
    older = desk.accept("bob")
    assert _claimed(desk) == older


def test_a_tenant_that_an_older_worker_passes_over_keeps_its_place(desk: Desk) -> None:
    for _ in range(8):
        desk.accept("bob")
    newer = _newer_and_readable(desk, "alice")
    for _ in range(8):
        desk.accept("carol")
    served = []
    for _ in range(4):
        # One that reads it and one that does not, in turn: put behind the others each time, it would wait for ever.
        served.append(_claimed(desk, VERSION + 1))
        _claimed(desk)
    assert newer in served


def _newer_and_readable(desk: Desk, tenant: str) -> str:
    id_ = desk.accept(tenant)
    desk.connection.hset(keys.GENERATION + id_, "version", VERSION + 1)
    return id_


WARM, COLD, OTHER = "edits.warm.any", "edits.cold.any", "edits.other.any"


def test_newer_work_that_waits_long_keeps_an_older_worker_from_nothing_else_that_does(desk: Desk) -> None:
    _from_a_newer_release(desk, queue=COLD)
    _pass_ms(desk, 50)
    waiting = desk.accept("bob", queue=OTHER)
    _pass_ms(desk, 200)
    desk.accept(queue=WARM)
    assert _claimed(desk, queues=[WARM, COLD, OTHER], preferred=1, patience_ms=100) == waiting


def test_newer_work_on_a_preferred_queue_makes_nobody_else_wait_longer(desk: Desk) -> None:
    _from_a_newer_release(desk, "bob", queue=WARM)
    _pass_ms(desk, 50)
    waiting = desk.accept("bob", queue=OTHER)
    _pass_ms(desk, 200)
    desk.accept(queue=WARM)
    assert _claimed(desk, queues=[WARM, OTHER], preferred=1, patience_ms=100) == waiting


def test_the_ticket_of_newer_work_is_not_passed_around_among_older_workers(desk: Desk) -> None:
    _from_a_newer_release(desk)
    assert _claim(desk, VERSION, preferred=0, deferred=1, deferral_ms=60_000) is None
    desk.accept()
    assert isinstance(_claim(desk, VERSION, preferred=0, deferred=1, deferral_ms=60_000), claims.Deferred)


def test_a_record_without_a_version_is_of_the_first(desk: Desk) -> None:
    id_ = desk.accept()
    desk.connection.hdel(keys.GENERATION + id_, "version")
    claim = _claim(desk, 1)
    assert isinstance(claim, generations.Claim)
    assert claim.id == id_


def test_what_cannot_be_read_rests_and_counts_for_nothing(desk: Desk) -> None:
    id_ = _unreadable(desk)
    taken = _claim(desk, VERSION)
    assert isinstance(taken, claims.Unreadable)
    assert desk.run(claims.release_unreadable(taken)) == "queued"
    assert (desk.read(id_).status, desk.read(id_).attempts) == (Status.QUEUED, 0)
    assert _claim(desk, VERSION) is None, "it rests: the same worker does not get it again at once"
    assert desk.connection.zscore(keys.DUE, id_) == pytest.approx(desk.now_ms() + claims.UNREADABLE_REST_MS, abs=1000)
    assert desk.run(claims.release_unreadable(taken)) == "lost", "the token is spent"


@pytest.mark.parametrize(
    ("field", "damage"), [("edit", None), ("edit", "{"), ("execution_limit_s", None), ("execution_limit_s", "soon")]
)
def test_what_is_damaged_is_handed_back_too_whatever_is_wrong_with_it(
    desk: Desk, field: str, damage: str | None
) -> None:
    id_ = desk.accept()
    desk.connection.hdel(keys.GENERATION + id_, field)
    if damage is not None:
        desk.connection.hset(keys.GENERATION + id_, field, damage)
    taken = _claim(desk, VERSION)
    assert isinstance(taken, claims.Unreadable)
    assert desk.run(claims.release_unreadable(taken)) == "queued"


def test_what_nobody_can_read_fails_in_the_end_and_is_parked(desk: Desk) -> None:
    id_ = _unreadable(desk)
    for time in range(claims.UNREADABLE_AT_MOST):
        taken = _claim(desk, VERSION)
        assert isinstance(taken, claims.Unreadable), time
        desk.run(claims.release_unreadable(taken))
        if desk.connection.zscore(keys.DUE, id_) is not None:
            desk.connection.zadd(keys.DUE, {id_: 0})
            desk.run(recovery.wake())
    found = desk.run(records.read(id_, "alice"))
    assert (found.status, found.error_code) == (Status.FAILED, "internal")
    assert desk.connection.zscore(keys.PARKED, id_) is not None


def test_what_a_newer_release_wrote_can_be_looked_at(desk: Desk) -> None:
    id_ = _from_a_newer_release(desk)
    result = json.loads(a_result(desk_claim(desk)).model_dump_json()) | {"measure_of_tomorrow": 3}
    desk.connection.hset(keys.GENERATION + id_, "result", json.dumps(result))
    found = desk.read(id_)
    assert found.edit == an_edit()
    assert found.result is not None


def test_what_a_newer_release_wrote_can_be_looked_at_wherever_it_put_something_new(desk: Desk) -> None:
    callback = generations.Callback(url="http://example.com", dialect="oxen")
    id_ = desk.accept(callback=callback)
    desk.claim()
    edit = json.loads(an_edit().model_dump_json())
    edit["canvas"]["field_of_tomorrow"] = edit["references"][0]["field_of_tomorrow"] = 1
    told = json.loads(callback.model_dump_json()) | {"field_of_tomorrow": 1}
    changes = {"edit": json.dumps(edit), "callback": json.dumps(told), "phase": "dreaming"}
    desk.connection.hset(keys.GENERATION + id_, mapping={"version": VERSION + 1, **changes})
    found = desk.read(id_)
    assert (found.edit, found.callback, found.phase) == (an_edit(), callback, None)


def test_what_cannot_be_looked_at_hides_no_others_of_a_list(desk: Desk) -> None:
    ids = [desk.accept() for _ in range(3)]
    edit = json.loads(an_edit().model_dump_json())
    edit["references"][0]["kind"] = "hologram"
    desk.connection.hset(keys.GENERATION + ids[1], mapping={"version": VERSION + 1, "edit": json.dumps(edit)})
    page = desk.run(records.list_("alice", matching={}, below=None, limit=9, active_only=False))
    assert [found.id for found in page.generations] == [ids[2], ids[0]]


def desk_claim(desk: Desk) -> generations.Claim:
    desk.accept("bob")
    return desk.claim()


FAULT = errors.GpuFaultError("The GPU reported a fault")


def _fault(desk: Desk) -> str:
    return desk.run(claims.fail(desk.claim(), FAULT, rest_s=0, max_attempts=3, max_losses=2))


def test_a_payload_that_faults_the_gpu_takes_two_workers_down_and_not_three(desk: Desk) -> None:
    id_ = desk.accept()
    fleet.announce(desk.connection, "w1", {})
    assert _fault(desk) == "queued"
    assert desk.run(presence.present()) == {}, "nothing is left to what it had loaded"
    assert _fault(desk) == "failed"
    found = desk.read(id_)
    assert (found.error_code, found.error_message) == ("gpu_fault", "The GPU reported a fault (2 times)")
    assert desk.connection.zscore(keys.PARKED, id_) is not None


def test_a_worker_lost_before_counts_with_a_fault_of_the_gpu(desk: Desk) -> None:
    id_ = desk.accept()
    desk.claim(lease_ms=0)
    desk.run(recovery.recover(lease_ms=1, stall_ms=60_000, max_attempts=3, max_losses=2))
    assert desk.read(id_).status is Status.QUEUED
    assert _fault(desk) == "failed"
