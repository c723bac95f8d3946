"""While a fleet is upgraded, workers meet records of releases they do not know: nothing is lost, parked or starved for it."""

import json

import pytest

from storage import keys
from storage.contracts import errors, generations
from storage.ledger import calls
from tests.stores.conftest import QUEUE, Desk, a_result, an_edit

Status = generations.Status
OLD = calls.Claimant(worker="old")
VERSION = generations.RECORD_VERSION


def _claim(desk: Desk, newest: int) -> object:
    return desk.run(calls.claim(OLD, 60_000, [QUEUE], newest=newest))


def _from_a_newer_release(desk: Desk, tenant: str = "alice") -> str:
    id_ = desk.accept(tenant)
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
    assert isinstance(_claim(desk, VERSION + 1), calls.Unreadable), "a worker that says it reads it is given it"


def test_older_work_behind_it_is_served_meanwhile(desk: Desk) -> None:
    newer = [_from_a_newer_release(desk, tenant) for tenant in ("alice", "bob")]
    older = [desk.accept("alice"), desk.accept("bob"), desk.accept("carol")]
    served = [_claim(desk, VERSION) for _ in range(3)]
    assert {claim.id for claim in served} == set(older)  # type: ignore[attr-defined]
    assert _claim(desk, VERSION) is None
    for id_, tenant in zip(newer, ("alice", "bob"), strict=True):
        assert desk.read(id_, tenant).status is Status.QUEUED


def test_a_record_without_a_version_is_of_the_first(desk: Desk) -> None:
    id_ = desk.accept()
    desk.connection.hdel(keys.GENERATION + id_, "version")
    claim = _claim(desk, 1)
    assert isinstance(claim, generations.Claim)
    assert claim.id == id_


def test_what_cannot_be_read_rests_and_counts_for_nothing(desk: Desk) -> None:
    id_ = _unreadable(desk)
    taken = _claim(desk, VERSION)
    assert isinstance(taken, calls.Unreadable)
    assert desk.run(calls.release_unreadable(taken)) == "queued"
    assert (desk.read(id_).status, desk.read(id_).attempts) == (Status.QUEUED, 0)
    assert _claim(desk, VERSION) is None, "it rests: the same worker does not get it again at once"
    assert desk.connection.zscore(keys.DUE, id_) == pytest.approx(desk.now_ms() + calls.UNREADABLE_REST_MS, abs=1000)
    assert desk.run(calls.release_unreadable(taken)) == "lost", "the token is spent"


def test_what_nobody_can_read_fails_in_the_end_and_is_parked(desk: Desk) -> None:
    id_ = _unreadable(desk)
    for time in range(calls.UNREADABLE_AT_MOST):
        taken = _claim(desk, VERSION)
        assert isinstance(taken, calls.Unreadable), time
        desk.run(calls.release_unreadable(taken))
        if desk.connection.zscore(keys.DUE, id_) is not None:
            desk.connection.zadd(keys.DUE, {id_: 0})
            desk.run(calls.wake())
    found = desk.run(calls.read(id_, "alice"))
    assert (found.status, found.error_code) == (Status.FAILED, "internal")
    assert desk.connection.zscore(keys.PARKED, id_) is not None


def test_what_a_newer_release_wrote_can_be_looked_at(desk: Desk) -> None:
    id_ = _from_a_newer_release(desk)
    result = json.loads(a_result(desk_claim(desk)).model_dump_json()) | {"measure_of_tomorrow": 3}
    desk.connection.hset(keys.GENERATION + id_, "result", json.dumps(result))
    found = desk.read(id_)
    assert found.edit == an_edit()
    assert found.result is not None


def desk_claim(desk: Desk) -> generations.Claim:
    desk.accept("bob")
    return desk.claim()


FAULT = errors.GpuFaultError("The GPU reported a fault")


def _fault(desk: Desk) -> str:
    return desk.run(calls.fail(desk.claim(), FAULT, rest_s=0, max_attempts=3, max_losses=2))


def test_a_payload_that_faults_the_gpu_takes_two_workers_down_and_not_three(desk: Desk) -> None:
    id_ = desk.accept()
    assert _fault(desk) == "queued"
    assert _fault(desk) == "failed"
    found = desk.read(id_)
    assert (found.error_code, found.error_message) == ("gpu_fault", "The GPU reported a fault (2 times)")
    assert desk.connection.zscore(keys.PARKED, id_) is not None


def test_a_worker_lost_before_counts_with_a_fault_of_the_gpu(desk: Desk) -> None:
    id_ = desk.accept()
    desk.claim(lease_ms=0)
    desk.run(calls.recover(lease_ms=1, stall_ms=60_000, max_attempts=3, max_losses=2))
    assert desk.read(id_).status is Status.QUEUED
    assert _fault(desk) == "failed"
