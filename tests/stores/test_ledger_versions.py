"""While a fleet is upgraded, workers meet records of releases they do not know: nothing is lost, parked or starved for it."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from storage import fleet, keys
from storage.contracts import edits, errors, generations, submissions
from storage.ledger import claims, presence, records, recovery, webhooks
from storage.ledger.records import lists
from tests.conftest import eventually
from tests.stores.conftest import QUEUE, Desk, a_result, an_edit, limits

Status = generations.Status
OLD = claims.Claimant(worker="old")
VERSION = edits.RECORD_VERSION


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
    _rewrite(desk, id_, lambda submission: submission["edit"].update(field_of_tomorrow=1))
    return id_


def _rewrite(desk: Desk, id_: str, change: Callable[[dict[str, Any]], object]) -> None:
    """As a newer release writes it."""
    submission = json.loads(str(desk.connection.hget(keys.GENERATION + id_, "submission")))
    change(submission)
    desk.connection.hset(keys.GENERATION + id_, mapping={"version": VERSION + 1, "submission": json.dumps(submission)})


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
    ("field", "damage"),
    [("submission", None), ("submission", "{"), ("execution_limit_s", None), ("execution_limit_s", "soon")],
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
    webhook = submissions.Webhook(url="http://example.com", dialect="oxen")
    id_ = desk.accept(webhook=webhook)
    desk.claim()

    def change(submission: dict[str, Any]) -> None:
        edit = submission["edit"]
        edit["canvas"] = {"field_of_tomorrow": 1}
        edit["references"][0]["field_of_tomorrow"] = submission["webhook"]["field_of_tomorrow"] = 1

    _rewrite(desk, id_, change)
    desk.connection.hset(keys.GENERATION + id_, "phase", "dreaming")
    found = desk.read(id_)
    assert (found.edit, found.submission.webhook, found.phase) == (an_edit(), webhook, None)


def test_what_cannot_be_looked_at_hides_no_others_of_a_list(desk: Desk) -> None:
    ids = [desk.accept() for _ in range(3)]
    _rewrite(desk, ids[1], lambda submission: submission["edit"]["references"][0].update(kind="hologram"))
    page = desk.run(lists.list_("alice", matching={}, below=None, limit=9, active_only=False))
    assert [found.id for found in page.generations] == [ids[2], ids[0]]


WEBHOOK = {
    "url": "http://example.com",
    "dialect": "bfl",
    "moments": ["completed"],
    "base": "",
    "secret": None,
    "note": "",
}


def test_a_record_of_the_second_version_is_shown_run_and_told_of_as_it_was_asked_for(desk: Desk) -> None:
    id_ = desk.accept(webhook=WEBHOOK)
    edit = {**an_edit().model_dump(mode="json"), "seed": 7}
    second = {"edit": json.dumps(edit), "submitted": '{"go_fast": true}', "callback": json.dumps(WEBHOOK), "version": 2}
    desk.connection.hset(keys.GENERATION + id_, mapping={**second, "callback_moments": "completed"})
    desk.connection.hdel(keys.GENERATION + id_, "submission", "webhook_moments")
    found = desk.read(id_)
    assert (found.edit.seed, found.submission.echo) == (7, {"go_fast": True})
    assert found.submission.webhook == submissions.Webhook.model_validate(WEBHOOK)
    claim = desk.claim()
    assert (claim.id, claim.edit) == (id_, found.edit)
    desk.finish(claim)
    (due,) = desk.run(webhooks.due(held_ms=60_000))
    assert due.generation.submission.webhook is not None


def test_an_idempotency_key_noted_by_a_release_before_replays_what_it_made(desk: Desk) -> None:
    first = desk.receive(idempotency_key="k", fingerprint="made in another way")
    key = keys.IDEMPOTENCY + "alice:k"
    noted = json.loads(str(desk.connection.get(key)))
    del noted["fingerprints"]
    desk.connection.set(key, json.dumps(noted), ex=60)
    assert desk.receive(idempotency_key="k", fingerprint="f").ids == first.ids


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
    desk.run(claims.beat(desk.claim(), 0, 0, generations.Phase.PREPARING))
    desk.run(recovery.recover(lease_ms=1, stall_ms=60_000, max_attempts=3, max_losses=2))
    assert desk.read(id_).status is Status.QUEUED
    assert _fault(desk) == "failed"
