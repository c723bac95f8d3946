"""The ledger's promises, one transition at a time."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage import fleet, keys
from storage.contracts import errors, generations, submissions
from storage.ledger import claims, erasure, expiry, presence, records, recovery
from storage.ledger.execution import RedisLedger
from storage.ledger.records import lists
from tests.conftest import eventually
from tests.stores.conftest import QUEUE, SAMPLE, TARGET, Desk, a_result, a_submission, an_edit, limits

Status = generations.Status
Phase = generations.Phase
GONE = errors.WorkerLostError("gone")
BROKEN = errors.InvalidInputError("broken")


def test_an_accepted_generation_waits_is_claimed_and_succeeds(desk: Desk) -> None:
    id_ = desk.accept()
    assert (desk.read(id_).status, desk.read(id_).position) == (Status.QUEUED, 0)
    claim = desk.claim()
    assert (claim.id, claim.token, claim.attempt, claim.edit) == (id_, 1, 1, an_edit())
    assert (desk.read(id_).status, desk.read(id_).position) == (Status.PROCESSING, None)
    assert desk.finish(claim)
    found = desk.read(id_)
    assert found.status is Status.SUCCEEDED
    assert found.result == a_result(claim)
    assert (found.step, found.edit.steps) == (8, 8)
    assert desk.event_types() == ["queued", "started", "completed"]


def test_a_result_expires_seven_days_after_completion_to_the_second(desk: Desk) -> None:
    desk.accept()
    claim = desk.claim()
    desk.finish(claim)
    times = desk.read(claim.id).times
    assert times.completed_ms is not None
    assert times.expires_at is not None
    assert int(times.expires_at.timestamp()) == times.completed_ms // 1000 + 7 * 24 * 3600


def test_nothing_waiting_is_nothing_claimed(desk: Desk) -> None:
    assert desk.run(claims.claim(claims.Claimant(worker="w1"), 1000, [QUEUE])) is None


def test_tenants_are_served_in_turn_whatever_the_first_one_sent(desk: Desk) -> None:
    greedy = [desk.accept("alice") for _ in range(5)]
    modest = [desk.accept("bob") for _ in range(2)]
    order = [desk.claim().id for _ in range(7)]
    assert order == [greedy[0], modest[0], greedy[1], modest[1], *greedy[2:]]


def test_preferred_queues_go_first_until_somebody_else_has_waited_too_long(desk: Desk) -> None:
    warm, cold = "edits.warm.any", "edits.cold.any"

    def claimed(patience_ms: int) -> str:
        claim = desk.run(
            claims.claim(claims.Claimant(worker="w"), 60_000, [warm, cold], preferred=1, patience_ms=patience_ms)
        )
        assert claim is not None
        return claim.id

    waiting = desk.accept(queue=cold)
    since = desk.read(waiting).times.created_ms
    eventually(lambda: desk.now_ms() - since > 200)
    preferred = [desk.accept(queue=warm) for _ in range(2)]
    assert claimed(60_000) == preferred[0]
    assert claimed(50) == waiting
    assert claimed(50) == preferred[1]


def test_of_those_who_waited_too_long_the_one_who_waited_longest_goes_first(desk: Desk) -> None:
    queues = ["edits.warm.any", "edits.a.any", "edits.b.any"]

    def pass_ms(milliseconds: int) -> None:
        since = desk.now_ms()
        eventually(lambda: desk.now_ms() - since > milliseconds)

    oldest = desk.accept(tenant="bob", queue=queues[2])
    pass_ms(5)
    second = desk.accept(queue=queues[1])
    pass_ms(5)
    later = desk.accept(queue=queues[0])
    taken = [
        desk.run(claims.claim(claims.Claimant(worker="w"), 60_000, queues, preferred=1, patience_ms=1))
        for _ in range(3)
    ]
    assert [claim.id for claim in taken if claim] == [oldest, second, later]


def test_under_a_backlog_where_everybody_waits_the_preferred_queue_is_served_on(desk: Desk) -> None:
    queues = ["edits.warm.any", "edits.cold.any"]
    preferred = [desk.accept(queue=queues[0]) for _ in range(2)]
    waiting = desk.accept(queue=queues[1])
    since = desk.now_ms()
    eventually(lambda: desk.now_ms() - since > 20)
    taken = [
        desk.run(claims.claim(claims.Claimant(worker="w"), 60_000, queues, preferred=1, patience_ms=10))
        for _ in range(3)
    ]
    assert [claim.id for claim in taken if claim] == [*preferred, waiting]


def test_a_tenants_urgent_work_goes_first_and_equal_work_by_age(desk: Desk) -> None:
    normal = [desk.accept(), desk.accept()]
    urgent = desk.accept(priority=1)
    assert [desk.claim().id for _ in range(3)] == [urgent, *normal]


def test_what_is_low_waits_its_turn_and_no_longer(desk: Desk) -> None:
    waiting = desk.accept(priority=submissions.LOW_PRIORITY)
    behind = desk.accept(priority=submissions.LOW_PRIORITY)
    usual = desk.accept()
    assert desk.claim().id == usual
    # As if the first had arrived 41 minutes ago.
    pending = keys.PENDING + "edits.quick.any:alice"
    desk.connection.zincrby(pending, -41 * 60_000 * 10_000, waiting)
    fresh = desk.accept()
    assert [desk.claim().id for _ in range(3)] == [waiting, fresh, behind]


def test_what_is_retried_waits_as_if_it_came_now(desk: Desk) -> None:
    old = desk.accept(priority=submissions.LOW_PRIORITY)
    desk.fail(desk.claim(), errors.InternalError("broken"), None)
    # Two days ago.
    desk.connection.hincrby(keys.GENERATION + old, "created_ms", -2 * 86_400_000)
    urgent = desk.accept(priority=submissions.HIGH_PRIORITY)
    desk.run(records.retry(old, "alice", limits()))
    assert [desk.claim().id for _ in range(2)] == [urgent, old]


def test_a_deadline_orders_what_waits(desk: Desk) -> None:
    usual, urgent = desk.accept(), desk.accept(priority=submissions.HIGH_PRIORITY)
    later, sooner = desk.accept(deadline_s=600), desk.accept(deadline_s=60, priority=submissions.LOW_PRIORITY)
    assert [desk.claim().id for _ in range(4)] == [sooner, later, urgent, usual]


def test_a_thousand_that_come_at_once_keep_their_order(desk: Desk) -> None:
    desk.connection.set(keys.SEQUENCE, 9_000)
    ids = [desk.accept() for _ in range(900)]
    assert [desk.claim().id for _ in ids] == ids


def test_the_position_counts_what_will_be_served_before(desk: Desk) -> None:
    ids = [desk.accept("alice") for _ in range(4)] + [desk.accept("bob") for _ in range(2)] + [desk.accept("carol")]
    tenants = ["alice"] * 4 + ["bob"] * 2 + ["carol"]
    foretold = {id_: desk.read(id_, tenant).position for id_, tenant in zip(ids, tenants, strict=True)}
    served = [desk.claim().id for _ in ids]
    assert foretold == {id_: served.index(id_) for id_ in ids}


def test_a_claim_that_was_replaced_can_change_nothing(desk: Desk) -> None:
    id_ = desk.accept()
    zombie = desk.claim()
    assert desk.fail(zombie, GONE) == "queued"
    heir = desk.claim()
    assert heir.token > zombie.token
    assert not desk.finish(zombie)
    assert desk.fail(zombie, BROKEN, None) == "lost"
    assert not desk.run(claims.beat(zombie, 1000, 3, Phase.EDITING))
    assert not desk.run(claims.release(zombie))
    assert desk.read(id_).status is Status.PROCESSING
    assert desk.finish(heir)
    assert desk.read(id_).result == a_result(heir)
    assert a_result(heir).key != a_result(zombie).key


def test_finishing_twice_with_the_same_token_is_once(desk: Desk) -> None:
    desk.accept()
    claim = desk.claim()
    assert desk.finish(claim)
    assert desk.finish(claim)
    assert desk.event_types().count("completed") == 1


def test_a_permanent_failure_ends_at_once_with_its_code(desk: Desk) -> None:
    id_ = desk.accept()
    assert desk.fail(desk.claim(), BROKEN, None) == "failed"
    found = desk.read(id_)
    assert (found.status, found.error_code, found.error_message) == (Status.FAILED, "invalid_input", "broken")
    assert desk.event_types()[-1] == "completed"


def test_a_transient_failure_is_tried_again_three_times_in_all(desk: Desk) -> None:
    id_ = desk.accept()
    assert [desk.fail(desk.claim(), GONE) for _ in range(3)] == ["queued", "queued", "failed"]
    assert (desk.read(id_).status, desk.read(id_).attempts) == (Status.FAILED, 3)
    assert desk.event_types().count("completed") == 1


def test_work_handed_back_is_not_blamed_and_goes_first(desk: Desk) -> None:
    id_ = desk.accept()
    desk.accept()
    claim = desk.claim()
    assert desk.run(claims.release(claim))
    again = desk.claim()
    assert (again.id, again.attempt) == (id_, 1)
    assert again.token > claim.token


def test_a_queued_generation_is_cancelled_and_never_claimed(desk: Desk) -> None:
    id_ = desk.accept()
    assert desk.run(records.cancel(id_, "alice")) == "cancelled"
    assert desk.run(records.cancel(id_, "alice")) == "terminal"
    assert desk.run(claims.claim(claims.Claimant(worker="w1"), 1000, [QUEUE])) is None
    assert desk.event_types() == ["queued", "cancelled"]
    assert desk.run(recovery.backlog()) == ()


def test_a_running_generation_is_cancelled_at_once(desk: Desk) -> None:
    id_ = desk.accept()
    claim = desk.claim()
    assert desk.run(records.cancel(id_, "alice")) == "cancelled"
    assert not desk.run(claims.beat(claim, 1000, 1, Phase.EDITING))
    assert not desk.finish(claim)
    assert desk.read(id_).status is Status.CANCELLED


def test_cancelling_while_it_completes_has_one_outcome(desk: Desk, another: Callable[[], RedisLedger]) -> None:
    first, second, barrier = another(), another(), threading.Barrier(2)

    def begin(ledger: RedisLedger, is_late: bool) -> None:
        barrier.wait()
        if is_late:
            ledger.run(recovery.backlog())

    def cancel(claim: generations.Claim, is_late: bool) -> bool:
        begin(first, is_late)
        return first.run(records.cancel(claim.id, "alice")) == "cancelled"

    def finish(claim: generations.Claim, is_late: bool) -> bool:
        begin(second, is_late)
        return second.run(claims.finish(claim, a_result(claim), TARGET, SAMPLE))

    endings = Counter[str]()
    with ThreadPoolExecutor(2) as threads:
        for number in range(2000):
            desk.accept()
            claim = desk.claim()
            # Neither is late, or one of them is by about as long as the other takes.
            cancelled = threads.submit(cancel, claim, number % 3 == 1)
            finished = threads.submit(finish, claim, number % 3 == 2)
            assert cancelled.result() != finished.result()
            expected = Status.CANCELLED if cancelled.result() else Status.SUCCEEDED
            assert desk.read(claim.id).status is expected
            endings["cancelled" if cancelled.result() else "completed"] += 1
    told = Counter(kind for kind in desk.event_types() if kind in ("completed", "cancelled"))
    assert told == endings
    assert min(endings["cancelled"], endings["completed"]) > 20, "both happen, or it was no race"


def test_another_tenants_generation_does_not_exist(desk: Desk) -> None:
    id_ = desk.accept("alice")
    with pytest.raises(errors.NotFoundError):
        desk.read(id_, "bob")
    assert desk.run(records.cancel(id_, "bob")) == "missing"
    assert desk.read(id_).status is Status.QUEUED


def test_a_silent_worker_loses_its_claim_to_another(desk: Desk) -> None:
    id_ = desk.accept()
    desk.claim(lease_ms=1, worker="w1")
    fleet.announce(desk.connection, "w1", {})
    recover = recovery.recover(lease_ms=1000, stall_ms=60_000, max_attempts=3, max_losses=3)
    assert eventually(lambda: desk.run(recover)) == {id_: "queued"}
    assert desk.run(presence.present()) == {}, "nothing is left to what it had loaded"
    assert desk.claim().attempt == 2
    assert desk.event_types() == ["queued", "started", "queued", "started"]


def test_a_worker_that_renews_keeps_its_claim(desk: Desk) -> None:
    desk.accept()
    claim = desk.claim(lease_ms=1)
    assert desk.run(claims.beat(claim, 60_000, 1, Phase.EDITING))
    assert desk.run(recovery.recover(lease_ms=1000, stall_ms=60_000, max_attempts=3, max_losses=3)) == {}


def test_a_payload_that_loses_every_worker_is_failed_as_worker_lost(desk: Desk) -> None:
    id_ = desk.accept()
    recover = recovery.recover(lease_ms=1000, stall_ms=60_000, max_attempts=5, max_losses=2)
    desk.run(claims.beat(desk.claim(), 0, 0, Phase.PREPARING))
    assert desk.run(recover) == {id_: "queued"}
    desk.run(claims.beat(desk.claim(), 0, 0, Phase.PREPARING))
    assert desk.run(recover) == {id_: "failed"}
    assert desk.read(id_).error_code == "worker_lost"


def test_claims_whose_answers_were_lost_are_no_losses_of_a_worker(desk: Desk) -> None:
    id_ = desk.accept()
    recover = recovery.recover(lease_ms=1000, stall_ms=60_000, max_attempts=5, max_losses=2)
    for _ in range(3):
        desk.claim(lease_ms=0)
        assert desk.run(recover) == {id_: "queued"}
    desk.run(claims.beat(desk.claim(), 0, 0, Phase.PREPARING))
    assert desk.run(recover) == {id_: "queued"}
    desk.claim(lease_ms=0)
    assert desk.run(recover) == {id_: "failed"}, "the fifth attempt"


def test_what_a_clock_that_was_ahead_wrote_is_not_waited_for(desk: Desk) -> None:
    id_, hour_ms = desk.accept(), 3_600_000
    desk.claim(lease_ms=hour_ms)
    desk.connection.hset(keys.SWEPT, mapping={"at": desk.now_ms() + hour_ms, "grace": desk.now_ms() + hour_ms})
    recover = recovery.recover(lease_ms=20, stall_ms=60_000, max_attempts=3, max_losses=3)
    assert desk.run(recover) == {}
    assert eventually(lambda: desk.run(recover)) == {id_: "queued"}


def test_after_a_silence_of_the_sweep_everyone_is_granted_one_more_lease(desk: Desk) -> None:
    id_ = desk.accept()
    desk.claim(lease_ms=1)
    stalled = recovery.recover(lease_ms=2000, stall_ms=0, max_attempts=3, max_losses=3)
    desk.connection.hset(keys.SWEPT, mapping={"at": 1, "grace": 0})
    assert desk.run(stalled) == {}
    patient = recovery.recover(lease_ms=2000, stall_ms=60_000, max_attempts=3, max_losses=3)
    assert desk.run(patient) == {}
    assert eventually(lambda: desk.run(patient)) == {id_: "queued"}


def test_the_same_idempotency_key_is_the_same_generation(desk: Desk) -> None:
    first = desk.receive(count=2, idempotency_key="k", fingerprint="f")
    again = desk.receive(count=2, idempotency_key="k", fingerprint="f")
    assert again.ids == first.ids
    assert again.cursor == first.cursor
    assert (first.replayed, again.replayed) == (False, True)
    with pytest.raises(errors.IdempotencyConflictError):
        desk.receive(idempotency_key="k", fingerprint="other")
    assert desk.receive("bob", idempotency_key="k", fingerprint="other").ids != first.ids


def test_a_hundred_concurrent_posts_of_one_key_make_one_generation(
    desk: Desk, another: Callable[[], RedisLedger]
) -> None:
    ledgers = [another() for _ in range(4)]

    def post(n: int) -> str:
        creation = records.create(
            a_submission(idempotency_key="k"),
            tenant="alice",
            ids=[str(uuid.uuid4())],
            queue=QUEUE,
            limits=limits(),
            fingerprint="f",
        )
        return ledgers[n % 4].run(creation).ids[0]

    with ThreadPoolExecutor(16) as threads:
        assert len(set(threads.map(post, range(100)))) == 1
    assert desk.run(recovery.backlog())[0].pending == 1


def test_repeating_a_create_whose_answer_was_lost_changes_nothing(desk: Desk) -> None:
    id_ = str(uuid.uuid4())
    desk.accept(ids=[id_])
    assert desk.receive(ids=[id_]).replayed
    assert desk.run(recovery.backlog())[0].pending == 1


def test_a_tenant_may_have_only_so_many_unfinished(desk: Desk) -> None:
    desk.receive(count=2, limits=limits(max_active=3))
    with pytest.raises(errors.TooManyActiveError, match="2 generations are unfinished; at most 3 may be"):
        desk.receive(count=2, limits=limits(max_active=3))
    assert len(desk.run(lists.list_("alice", matching={}, below=None, limit=10, active_only=True)).generations) == 2


def test_the_list_shows_what_is_unfinished_newest_first(desk: Desk) -> None:
    ids = [desk.accept() for _ in range(3)]
    desk.finish(desk.claim())
    page = desk.run(lists.list_("alice", matching={}, below=None, limit=10, active_only=True))
    assert [found.id for found in page.generations] == [ids[2], ids[1]]
    done = desk.run(lists.list_("alice", matching={"status": "succeeded"}, below=None, limit=10, active_only=False))
    assert [found.id for found in done.generations] == [ids[0]]


def test_the_list_comes_in_pages_without_gap_or_repetition(desk: Desk) -> None:
    ids = [desk.accept() for _ in range(7)]
    seen: list[str] = []
    below: str | None = None
    while True:
        page = desk.run(lists.list_("alice", matching={}, below=below, limit=3, active_only=True))
        seen += [found.id for found in page.generations]
        below = page.continue_below
        if below is None:
            break
    assert seen == ids[::-1]


def test_progress_is_told_but_not_logged(desk: Desk) -> None:
    desk.accept()
    claim = desk.claim()
    assert desk.run(claims.beat(claim, 60_000, 3, Phase.EDITING))
    assert desk.run(claims.beat(claim, 60_000, 2, Phase.EDITING))
    assert desk.read(claim.id).step == 3
    assert "progress" not in desk.event_types()
    live = [fields for _, fields in desk.connection.xrange(keys.LIVE_EVENTS)]  # type: ignore[union-attr, misc]
    assert [fields["step"] for fields in live if fields["type"].endswith("progress")] == ["3"]


def test_a_queue_lacks_as_many_tickets_as_would_wake_enough_workers(desk: Desk) -> None:
    for _ in range(3):
        desk.accept()
    desk.connection.rpush(keys.BROKER + QUEUE, "a ticket")
    assert [(row.queue, row.pending, row.tickets, row.missing_tickets) for row in desk.run(recovery.backlog())] == [
        (QUEUE, 3, 1, 2)
    ]
    desk.connection.delete(keys.BROKER + QUEUE)


def _expired(desk: Desk) -> list[str]:
    found = list(iter(lambda: desk.run(expiry.expired()), None))
    for one in found:
        assert desk.run(expiry.forget(one, again_ms=0)) == 1
    return [one.prefix for one in found]


def test_what_is_tried_anew_while_its_objects_are_deleted_keeps_what_it_makes(desk: Desk) -> None:
    id_ = desk.accept()
    desk.fail(desk.claim(), errors.InternalError("a fault"), None)
    (held,) = _due(desk, f"results/alice/{id_}/")
    assert desk.run(expiry.is_held(held))
    assert desk.run(records.retry(id_, "alice", limits())).queue == QUEUE
    assert not desk.run(expiry.is_held(held)), "nothing more is deleted"
    assert desk.run(expiry.forget(held)) == 0
    assert desk.connection.zscore(keys.EXPIRING, held.prefix) is not None
    assert _expired(desk) == []


def _due(desk: Desk, prefix: str) -> list[expiry.Expired]:
    """Its time has come."""
    assert desk.connection.zadd(keys.EXPIRING, {prefix: 1}, xx=True, ch=True) == 1
    return list(iter(lambda: desk.run(expiry.expired()), None))


def test_one_deletes_at_a_time_and_another_once_its_hold_is_over(desk: Desk) -> None:
    desk.run(expiry.keep(["inputs/alice/1/"], seconds=0))
    # A hold is known by its end, and this one's is another even if both begin in one millisecond.
    first = desk.run(expiry.expired(hold_s=2 * expiry.HOLD_S))
    assert first is not None
    assert desk.run(expiry.expired()) is None
    (second,) = _due(desk, "inputs/alice/1/")
    assert second.prefix == first.prefix
    assert desk.run(expiry.is_held(second))
    assert not desk.run(expiry.is_held(first))
    assert desk.run(expiry.forget(first)) == 0
    assert desk.run(expiry.forget(second)) == 1
    assert not desk.connection.exists(keys.EXPIRING)


@pytest.mark.parametrize("end", ["cancelled", "failed", "erased"])
def test_what_a_worker_stores_after_the_end_is_deleted_all_the_same(desk: Desk, end: str) -> None:
    id_ = desk.accept()
    claim = desk.claim()
    if end == "cancelled":
        desk.run(records.cancel(id_, "alice"))
    elif end == "failed":
        desk.fail(claim, errors.InternalError("a fault"), None)
    else:
        desk.run(erasure.erase(id_, "alice"))
    # What is erased is deleted at once, and what comes later under a prefix of its own.
    due = desk.connection.zscore(keys.EXPIRING, f"results/alice/{id_}" + "/" * (end != "erased"))
    assert due is not None
    assert due >= desk.now_ms() + claim.execution_limit_s * 1000


def test_objects_are_due_when_their_record_says_so(desk: Desk) -> None:
    kept = desk.accept(inputs_prefix="inputs/alice/1/")
    desk.finish(desk.claim())
    dropped = desk.accept()
    desk.run(records.cancel(dropped, "alice"))
    prefix = f"results/alice/{dropped}/"
    assert _expired(desk) == [prefix]
    (held,) = _due(desk, prefix)
    desk.run(expiry.forget(held))
    assert _expired(desk) == []
    assert desk.connection.zscore(keys.EXPIRING, f"results/alice/{kept}/") is not None
    assert desk.connection.zscore(keys.EXPIRING, "inputs/alice/1/") is not None


def test_a_refused_order_is_recorded_as_failed(desk: Desk) -> None:
    id_ = desk.accept(refused={"code": "invalid_input", "message": "bad ratio"})
    found = desk.read(id_)
    assert (found.status, found.error_code, found.error_message) == (Status.FAILED, "invalid_input", "bad ratio")
    assert desk.event_types() == ["completed"]
    assert desk.run(claims.claim(claims.Claimant(worker="w1"), 1000, [QUEUE])) is None


RECOVER = recovery.recover(lease_ms=1000, stall_ms=60_000, max_attempts=5, max_losses=2)


def test_what_is_to_be_tried_again_rests_first(desk: Desk) -> None:
    id_ = desk.accept()
    assert desk.fail(desk.claim(), GONE, 1.5) == "queued"
    assert desk.run(recovery.wake()) == {}
    assert desk.run(claims.claim(claims.Claimant(worker="w"), 1000, [QUEUE])) is None
    assert desk.run(recovery.backlog()) == (), "no ticket is missing for what rests"
    assert desk.read(id_).status is Status.QUEUED
    assert eventually(lambda: desk.run(recovery.wake())) == {id_: "pending"}
    assert desk.claim().attempt == 2


def test_what_rests_can_be_cancelled(desk: Desk) -> None:
    id_ = desk.accept()
    desk.fail(desk.claim(), GONE, 60)
    assert desk.run(records.cancel(id_, "alice")) == "cancelled"
    assert desk.connection.zcard(keys.DUE) == 0
    assert desk.run(recovery.backlog()) == ()


def test_what_waits_longer_than_allowed_fails_and_is_told(desk: Desk) -> None:
    late = desk.accept(limits=limits(queue_ttl_s=0.01))
    patient = desk.accept()
    assert eventually(lambda: desk.run(recovery.wake())) == {late: "expired"}
    assert (desk.read(late).status, desk.read(late).error_code) == (Status.FAILED, "expired_in_queue")
    assert desk.event_types()[-1] == "completed"
    assert desk.claim().id == patient
    assert desk.run(claims.claim(claims.Claimant(worker="w"), 1000, [QUEUE])) is None


def test_what_runs_does_not_expire_in_the_queue(desk: Desk) -> None:
    desk.accept(limits=limits(queue_ttl_s=0.01))
    desk.claim()
    assert desk.connection.zcard(keys.DEADLINES) == 0
    assert desk.run(recovery.wake()) == {}


def test_a_payload_that_kills_its_worker_twice_is_parked_with_the_phase_it_died_in(desk: Desk) -> None:
    id_ = desk.accept()
    for _ in range(2):
        claim = desk.claim(lease_ms=1)
        desk.run(claims.beat(claim, 1, 1, Phase.EDITING))
        eventually(lambda: desk.run(RECOVER))
    assert desk.read(id_).error_message == "The worker was lost 2 times, the last time while editing"
    parked = desk.run(recovery.parked())
    assert [(record["id"], record["phase"], record["error_code"]) for record in parked] == [
        (id_, "editing", "worker_lost")
    ]


def test_used_up_attempts_are_parked_and_permanent_failures_are_not(desk: Desk) -> None:
    used_up = desk.accept()
    for _ in range(3):
        desk.fail(desk.claim(), GONE)
    desk.accept()
    desk.fail(desk.claim(), BROKEN, None)
    assert [record["id"] for record in desk.run(recovery.parked())] == [used_up]


def test_a_parked_generation_can_be_tried_anew(desk: Desk) -> None:
    id_ = desk.accept()
    for _ in range(3):
        desk.fail(desk.claim(), GONE)
    assert desk.run(recovery.unpark(id_, "retry", queue_ttl_s=60))
    assert not desk.run(recovery.unpark(id_, "retry", queue_ttl_s=60))
    found = desk.read(id_)
    assert (found.status, found.error_code, found.times.completed_ms) == (Status.QUEUED, None, None)
    assert desk.run(recovery.parked()) == []
    claim = desk.claim()
    assert (claim.attempt, claim.token) == (1, 4)
    assert desk.finish(claim)


def test_a_parked_generation_can_be_dropped_from_the_list(desk: Desk) -> None:
    id_ = desk.accept()
    for _ in range(3):
        desk.fail(desk.claim(), GONE)
    assert desk.run(recovery.unpark(id_, "drop", queue_ttl_s=60))
    assert desk.run(recovery.parked()) == []
    assert desk.read(id_).status is Status.FAILED


def test_the_service_takes_only_so_many_queued(desk: Desk) -> None:
    desk.receive("alice", count=2, limits=limits(max_queued=3))
    with pytest.raises(errors.StoreFullError, match="2 generations are queued"):
        desk.receive("bob", count=2, limits=limits(max_queued=3))
    desk.receive("bob", count=1, limits=limits(max_queued=3))


def test_a_full_store_refuses_new_work_whole_and_finishes_old(desk: Desk) -> None:
    id_ = desk.accept()
    used = int(desk.connection.info("memory")["used_memory"])  # type: ignore[index]
    desk.connection.config_set("maxmemory", used // 2)
    try:
        with pytest.raises(errors.StoreFullError, match="The store is full"):
            desk.receive()
        claim = desk.claim()
        assert desk.run(claims.beat(claim, 60_000, 1, Phase.EDITING))
        assert desk.finish(claim)
        fleet.announce(desk.connection, "w9", {"role": "gpu"})
        assert "w9" in desk.run(presence.present()), "or nobody would be there any more"
    finally:
        desk.connection.config_set("maxmemory", "1gb")
    assert desk.read(id_).status is Status.SUCCEEDED
    everything = desk.run(lists.list_("alice", matching={}, below=None, limit=9, active_only=False))
    assert [found.id for found in everything.generations] == [id_]


def test_inputs_go_when_every_generation_that_shares_them_is_cancelled(desk: Desk) -> None:
    ids = desk.receive(count=2, inputs_prefix="inputs/alice/x/").ids
    desk.run(records.cancel(ids[0], "alice"))
    assert "inputs/alice/x/" not in _expired(desk)
    desk.run(records.cancel(ids[1], "alice"))
    assert "inputs/alice/x/" in _expired(desk)


def test_inputs_stay_while_a_result_was_made_of_them(desk: Desk) -> None:
    ids = desk.receive(count=2, inputs_prefix="inputs/alice/x/").ids
    desk.finish(desk.claim())
    desk.run(records.cancel(ids[1], "alice"))
    assert "inputs/alice/x/" not in _expired(desk)
