"""What dialects ask of the ledger beyond the native API: webhooks, retries, streams, counts, siblings."""

from typing import Any

import pytest

from storage import keys
from storage.contracts import errors, generations, submissions
from storage.ledger import batches, claims, erasure, records, recovery, usage, webhooks
from storage.ledger.records import lists
from tests.conftest import eventually
from tests.stores.conftest import Desk, an_edit, limits

WEBHOOK = submissions.Webhook(url="http://example.com/hook", dialect="runpod", moments=("start", "completed"))
INTERNAL = errors.InternalError("broken")


def accepted(desk: Desk, *, webhook: submissions.Webhook | None = WEBHOOK, ids: tuple[str, ...] = ("one",)) -> str:
    return desk.receive(ids=ids, webhook=webhook).ids[0]


def due(desk: Desk, held_ms: int = 60_000) -> list[tuple[str, str, int]]:
    return [(one.id, one.moment, one.tries) for one in desk.run(webhooks.due(held_ms=held_ms))]


def test_a_webhook_is_due_at_its_moments_and_held_by_the_process_that_takes_it(desk: Desk) -> None:
    id_ = accepted(desk)
    assert due(desk) == []
    claim = desk.claim()
    (start,) = desk.run(webhooks.due(held_ms=60_000))
    assert (start.id, start.moment, start.tries) == (id_, "start", 0)
    desk.finish(claim)
    assert due(desk) == [], "the end is not told before the start"
    desk.run(webhooks.called(start, again_ms=60_000, outcome="answered 500", took_ms=5))
    assert eventually(lambda: due(desk)) == [(id_, "completed", 0)], "once that was tried"


@pytest.mark.parametrize("ending", ["finish", "fail", "cancel"])
def test_every_ending_makes_it_due(desk: Desk, ending: str) -> None:
    id_ = accepted(desk, webhook=WEBHOOK.model_copy(update={"moments": ("completed",)}))
    if ending == "cancel":
        desk.run(records.cancel(id_, "alice"))
    elif ending == "finish":
        desk.finish(desk.claim())
    else:
        desk.run(claims.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    assert due(desk) == [(id_, "completed", 0)]


def test_what_is_not_taken_is_due_again_and_what_is_done_is_not(desk: Desk) -> None:
    accepted(desk)
    desk.claim()
    (one,) = desk.run(webhooks.due(held_ms=60_000))
    desk.run(webhooks.called(one, again_ms=20, outcome="answered 500", took_ms=5))
    assert eventually(lambda: due(desk)) == [("one", "start", 1)]
    desk.run(webhooks.called(one, again_ms=None, outcome="answered 200", took_ms=5))
    assert due(desk, held_ms=0) == []


def test_a_process_that_dies_while_calling_leaves_it_to_another(desk: Desk) -> None:
    accepted(desk)
    desk.claim()
    assert due(desk, held_ms=20) == [("one", "start", 0)]
    assert eventually(lambda: due(desk)) == [("one", "start", 0)]


def test_of_several_generations_one_webhook_speaks_once_all_are_over(desk: Desk) -> None:
    accepted(desk, ids=("one", "two", "three"))
    assert desk.run(records.read("two", "alice")).siblings == ("one", "two", "three")
    taken = [desk.claim() for _ in range(3)]
    (start,) = desk.run(webhooks.due(held_ms=60_000))
    assert (start.id, start.moment) == ("one", "start")
    desk.run(webhooks.called(start, again_ms=None, outcome="answered 200", took_ms=5))
    desk.finish(taken[0])
    desk.finish(taken[2])
    assert due(desk) == [], "the second is not over"
    desk.finish(taken[1])
    assert due(desk) == [("one", "completed", 0)]


def test_what_becomes_due_while_it_is_called_is_called_again(desk: Desk) -> None:
    id_ = accepted(desk, webhook=WEBHOOK.model_copy(update={"moments": ("completed",)}))
    desk.run(claims.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    (calling,) = desk.run(webhooks.due(held_ms=60_000))
    desk.run(records.retry(id_, "alice", limits()))
    desk.finish(desk.claim())
    assert desk.run(webhooks.called(calling, again_ms=None, outcome="answered 200", took_ms=5)) == 0
    assert due(desk) == [(id_, "completed", 0)]


def test_what_is_retried_is_not_told_of_as_over(desk: Desk) -> None:
    id_ = accepted(desk, webhook=WEBHOOK.model_copy(update={"moments": ("completed",)}))
    desk.run(claims.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    desk.run(records.retry(id_, "alice", limits()))
    assert due(desk) == []


def test_a_request_is_told_of_once_more_only_when_all_of_it_is_over(desk: Desk) -> None:
    accepted(desk, webhook=WEBHOOK.model_copy(update={"moments": ("completed",)}), ids=("one", "two"))
    desk.finish(desk.claim())
    for id_ in ("one", "two"):
        with pytest.raises(errors.InvalidInputError, match="not over yet"):
            desk.run(webhooks.redeliver(id_, "alice"))
    assert due(desk) == []
    desk.finish(desk.claim())
    (told,) = desk.run(webhooks.due(held_ms=60_000))
    desk.run(webhooks.called(told, again_ms=None, outcome="answered 200", took_ms=5))
    desk.run(webhooks.redeliver("two", "alice"))
    assert due(desk) == [("one", "completed", 0)]


def test_few_secrets_hold_at_a_time(desk: Desk) -> None:
    for version in range(1, 5):
        assert desk.run(webhooks.rotate_secret("alice", overlap_s=60)).current == version
    with pytest.raises(errors.TooManyRequestsError) as refused:
        desk.run(webhooks.rotate_secret("alice", overlap_s=60))
    assert 0 < refused.value.retry_after <= 60
    held = desk.run(webhooks.secret_versions("alice"))
    assert (held.current, [version for version, _ in held.earlier]) == (4, [3, 2, 1, 0])
    assert desk.run(webhooks.rotate_secret("bob", overlap_s=0)).current == 1
    for version in range(2, 12):
        assert desk.run(webhooks.rotate_secret("bob", overlap_s=0)).current == version, "none of these goes on"


def test_one_tenants_webhooks_leave_room_for_anothers(desk: Desk) -> None:
    webhook = WEBHOOK.model_copy(update={"moments": ("completed",)})
    for tenant, count in (("alice", 40), ("bob", 1)):
        for _ in range(count):
            desk.run(records.cancel(desk.accept(tenant, webhook=webhook), tenant))
    share = webhooks.Share(most=3, few=3)
    taken = desk.run(webhooks.due(held_ms=60_000, limit=8, share=share, calling=["alice", "alice"]))
    assert sorted(one.tenant for one in taken) == ["alice", "bob"]


def _ended(desk: Desk, tenant: str, count: int) -> None:
    """So many generations whose webhooks are due."""
    webhook = WEBHOOK.model_copy(update={"moments": ("completed",)})
    for _ in range(count):
        desk.run(records.cancel(desk.accept(tenant, webhook=webhook), tenant))


def test_tenants_take_turns_however_much_each_has(desk: Desk) -> None:
    _ended(desk, "alice", 30)
    _ended(desk, "bob", 3)
    _ended(desk, "carol", 1)
    # One place is free at a time, and nobody is called already.
    turns = [eventually(lambda: desk.run(webhooks.due(held_ms=60_000, limit=1)))[0].tenant for _ in range(8)]
    assert turns[:3] == ["alice", "bob", "carol"]
    assert turns.count("bob") == 3
    # Together they take one each, then one each again.
    taken = eventually(lambda: desk.run(webhooks.due(held_ms=60_000, limit=3)))
    assert [one.tenant for one in taken] == ["alice"] * 3


def test_whose_webhooks_end_does_not_go_before_those_who_wait(desk: Desk) -> None:
    _ended(desk, "alice", 30)
    (calling,) = desk.run(webhooks.due(held_ms=60_000, limit=1))
    _ended(desk, "bob", 1)
    # Hers are older than Bob's, whatever becomes of them meanwhile.
    served = []
    for _ in range(2):
        desk.run(webhooks.called(calling, again_ms=None, outcome="answered 200", took_ms=5))
        _ended(desk, "alice", 1)
        (calling,) = eventually(lambda: desk.run(webhooks.due(held_ms=60_000, limit=1)))
        served.append(calling.tenant)
    assert sorted(served) == ["alice", "bob"]


def test_with_many_tenants_each_has_its_turn(desk: Desk) -> None:
    tenants = [f"tenant-{number}" for number in range(12)]
    for tenant in tenants:
        _ended(desk, tenant, 4)
    served = []
    for _ in range(24):
        (calling,) = eventually(lambda: desk.run(webhooks.due(held_ms=60_000, limit=1)))
        served.append(calling.tenant)
        desk.run(webhooks.called(calling, again_ms=None, outcome="answered 200", took_ms=5))
    # Those that were served in one millisecond have no order among them, so a turn more or less is chance.
    assert {tenant for tenant in tenants if not 1 <= served.count(tenant) <= 3} == set()


def test_what_a_process_of_the_release_before_calls_is_left_to_it(desk: Desk) -> None:
    _ended(desk, "alice", 1)
    ((member, _),) = desk.connection.zrange(keys.WEBHOOKS + "alice", 0, -1, withscores=True)
    desk.connection.delete(keys.WEBHOOKS + "alice", keys.WEBHOOK_TURNS)
    desk.connection.zadd(keys.WEBHOOKS_BEFORE, {member: desk.now_ms() + 60_000})
    assert desk.run(webhooks.due(held_ms=60_000)) == ()
    assert desk.connection.zcard(keys.WEBHOOKS_BEFORE) == 1


def test_slow_receivers_of_a_few_leave_room_for_the_others(desk: Desk) -> None:
    for tenant in ("alice", "bob", "carol", "dora"):
        _ended(desk, tenant, 20)
    share = webhooks.Share(most=8, few=2, busy=16)
    calling = [one.tenant for one in desk.run(webhooks.due(held_ms=60_000, limit=32, share=share))]
    assert {tenant: calling.count(tenant) for tenant in set(calling)} == dict.fromkeys(
        ("alice", "bob", "carol", "dora"), 4
    )
    assert desk.run(webhooks.due(held_ms=60_000, limit=16, share=share, calling=calling)) == ()
    _ended(desk, "erin", 5)
    taken = desk.run(webhooks.due(held_ms=60_000, limit=16, share=share, calling=calling))
    assert [one.tenant for one in taken] == ["erin", "erin"]


def test_what_a_release_before_noted_is_called_too(desk: Desk) -> None:
    _ended(desk, "alice", 2)
    members = dict(desk.connection.zrange(keys.WEBHOOKS + "alice", 0, -1, withscores=True))
    desk.connection.delete(keys.WEBHOOKS + "alice", keys.WEBHOOK_TURNS)
    desk.connection.zadd(keys.WEBHOOKS_BEFORE, {**members, "erased/completed": 1})
    assert [one.tenant for one in desk.run(webhooks.due(held_ms=60_000))] == ["alice", "alice"]
    assert not desk.connection.exists(keys.WEBHOOKS_BEFORE)


def test_a_tenant_whose_webhooks_are_done_has_no_turn(desk: Desk) -> None:
    _ended(desk, "alice", 1)
    (one,) = desk.run(webhooks.due(held_ms=60_000))
    assert desk.connection.zcard(keys.WEBHOOK_TURNS) == 1
    desk.run(webhooks.called(one, again_ms=None, outcome="answered 200", took_ms=5))
    assert not desk.connection.exists(keys.WEBHOOK_TURNS, keys.WEBHOOKS + "alice")


def test_a_retry_counts_among_what_a_tenant_may_have(desk: Desk) -> None:
    id_ = accepted(desk)
    desk.run(claims.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    desk.accept("alice")
    with pytest.raises(errors.TooManyActiveError):
        desk.run(records.retry(id_, "alice", limits(max_active=1)))
    with pytest.raises(errors.StoreFullError):
        desk.run(records.retry(id_, "alice", limits(max_queued=1)))
    assert desk.run(records.read(id_, "alice")).status is generations.Status.FAILED


@pytest.mark.parametrize("begun", [False, True])
def test_a_deadline_ends_what_waits_and_what_runs(desk: Desk, begun: bool) -> None:
    id_ = desk.accept("alice", deadline_s=0.05)
    claim = desk.claim() if begun else None
    assert eventually(lambda: desk.run(recovery.wake())) == {id_: "expired"}
    found = desk.run(records.read(id_, "alice"))
    assert (found.status, found.error_code) == (generations.Status.FAILED, "deadline_exceeded")
    if claim is not None:
        assert not desk.finish(claim), "a result that comes later is nobody's"


def test_what_is_over_before_its_deadline_stays_as_it_is(desk: Desk) -> None:
    id_ = desk.accept("alice", deadline_s=0.05)
    desk.finish(desk.claim())
    assert desk.connection.zcard(keys.DEADLINES) == 0
    assert desk.run(records.read(id_, "alice")).status is generations.Status.SUCCEEDED


def test_a_failed_generation_is_retried_by_its_tenant_alone(desk: Desk) -> None:
    id_ = accepted(desk)
    desk.run(claims.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    with pytest.raises(errors.NotFoundError):
        desk.run(records.retry(id_, "bob", limits()))
    assert desk.run(records.retry(id_, "alice", limits())).queue == "edits.quick.any"
    found = desk.run(records.read(id_, "alice"))
    assert (found.status, found.attempts, found.error_code) == (generations.Status.QUEUED, 0, None)
    with pytest.raises(errors.InvalidInputError):
        desk.run(records.retry(id_, "alice", limits()))
    assert desk.finish(desk.claim())
    with pytest.raises(errors.InvalidInputError):
        desk.run(records.retry(id_, "alice", limits()))


def test_what_is_agreed_to_be_erased_is_so_after_its_end_and_not_while_it_is_retried(desk: Desk) -> None:
    id_ = desk.accept("alice", kept_s=0.05)
    assert desk.run(erasure.over(10)) == ()
    desk.run(claims.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    desk.run(records.retry(id_, "alice", limits()))
    claim = desk.claim()
    assert desk.run(erasure.over(10)) == (), "it runs again"
    assert desk.finish(claim)
    assert eventually(lambda: desk.run(erasure.over(10))) == ((id_, "alice"),)
    desk.run(erasure.erase(id_, "alice"))
    assert desk.run(erasure.over(10)) == ()


def test_a_request_is_erased_early_once_all_of_it_is_over(desk: Desk) -> None:
    ids = desk.receive("alice", count=2, kept_s=0.05).ids
    assert desk.finish(desk.claim())
    assert desk.connection.zcard(keys.ERASING) == 0, "another one of it still runs"
    assert desk.finish(desk.claim())
    assert eventually(lambda: len(desk.run(erasure.over(10))) == 2)
    assert {id_ for id_, _ in desk.run(erasure.over(10))} == set(ids)


def test_what_was_retried_since_it_was_listed_is_not_erased(desk: Desk) -> None:
    id_ = desk.accept("alice", kept_s=0.01)
    desk.run(claims.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    assert eventually(lambda: desk.run(erasure.over(10))) == ((id_, "alice"),)
    desk.run(records.retry(id_, "alice", limits()))
    assert desk.run(erasure.erase(id_, "alice", only_due=True)) is None
    assert desk.read(id_).status is generations.Status.QUEUED


def test_an_idempotency_key_that_was_used_again_is_still_known(desk: Desk) -> None:
    old = desk.accept("alice", idempotency_key="order")
    desk.connection.delete(f"{keys.IDEMPOTENCY}alice:order")  # as after a day
    new = desk.accept("alice", idempotency_key="order")
    desk.run(erasure.erase(old, "alice"))
    again = desk.receive("alice", idempotency_key="order")
    assert (again.replayed, again.ids) == (True, (new,))
    desk.run(erasure.erase(new, "alice"))
    assert not desk.receive("alice", idempotency_key="order").replayed


def test_words_are_found_whatever_their_letters_and_beside_damaged_records(desk: Desk) -> None:
    id_ = desk.accept("alice", edit=an_edit(prompt="Die Ecole und die École"))
    damaged = desk.accept("alice")
    desk.connection.hset(f"{keys.GENERATION}{damaged}", "submission", "{")

    def found(words: str) -> list[str]:
        page = lists.list_("alice", matching={}, below=None, limit=10, active_only=False, words=words)
        return [one.id for one in desk.run(page).generations]

    assert found("die École") == found("ECOLE UND") == [id_]
    assert found("nowhere") == []


def test_only_what_still_waits_is_purged(desk: Desk) -> None:
    accepted(desk, ids=("one", "two"))
    desk.claim()
    told = [desk.run(records.cancel(id_, "alice", only_queued=True)) for id_ in ("one", "two")]
    assert told == ["processing", "cancelled"]


def test_a_result_is_taken_from_its_stream_once(desk: Desk) -> None:
    id_ = accepted(desk)
    assert not desk.run(records.drain(id_, "alice")), "it is not over"
    desk.finish(desk.claim())
    with pytest.raises(errors.NotFoundError):
        desk.run(records.drain(id_, "bob"))
    assert [desk.run(records.drain(id_, "alice")) for _ in range(2)] == [True, False]


def test_a_tenants_generations_are_counted_by_what_became_of_them(desk: Desk) -> None:
    accepted(desk, ids=("one", "two", "three", "four"))
    desk.finish(desk.claim())
    desk.run(claims.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    desk.claim()
    desk.run(records.retry("two", "alice", limits()))
    tally = desk.run(usage.tally("alice", "quick"))
    assert tally == usage.Tally(succeeded=1, failed=1, cancelled=0, retried=1, queued=2, processing=1)
    assert desk.run(usage.tally("bob", "quick")).queued == 0


def test_the_start_is_told_once_though_its_worker_is_lost(desk: Desk) -> None:
    id_ = accepted(desk)
    desk.claim(lease_ms=0)
    desk.run(recovery.recover(lease_ms=1000, stall_ms=60_000, max_attempts=3, max_losses=3))
    assert due(desk) == [], "it is queued again: there is no start to tell of"
    claim = desk.claim()
    (start,) = desk.run(webhooks.due(held_ms=60_000))
    assert (start.moment, start.generation.status) == ("start", "processing")
    desk.run(webhooks.called(start, again_ms=None, outcome="answered 200", took_ms=5))
    desk.run(claims.release(claim))
    desk.finish(desk.claim())
    assert due(desk) == [(id_, "completed", 0)]


def test_a_second_end_of_a_request_is_told_as_another_with_all_its_tries(desk: Desk) -> None:
    first, second = desk.receive(ids=("one", "two"), webhook=WEBHOOK.model_copy(update={"moments": ("completed",)})).ids
    desk.finish(desk.claim())
    desk.fail(desk.claim(), errors.InternalError("broken"), rest_s=None)
    (ended,) = desk.run(webhooks.due(held_ms=60_000))
    desk.run(webhooks.called(ended, again_ms=None, outcome="answered 200", took_ms=5))
    desk.run(records.retry(second, "alice", limits()))
    desk.finish(desk.claim())
    (again,) = desk.run(webhooks.due(held_ms=60_000))
    assert (again.id, again.tries) == (first, 0)
    assert again.generation.webhook_id("completed") != ended.generation.webhook_id("completed")


def test_what_is_left_of_a_request_is_found_by_its_key(desk: Desk) -> None:
    first, second = desk.receive(count=2, idempotency_key="order").ids
    desk.run(erasure.erase(first, "alice"))
    again = desk.receive(count=2, idempotency_key="order")
    assert (again.ids, again.replayed) == ((second,), True)
    desk.run(erasure.erase(second, "alice"))
    assert not desk.receive(count=2, idempotency_key="order").replayed


def test_a_key_of_a_batch_and_one_of_a_request_never_meet(desk: Desk) -> None:
    named: dict[str, Any] = {"tenant": "alice", "caller": "", "name": "", "total": 1, "refused": 0, "webhook": None}
    desk.run(batches.create(id_="b", **named, idempotency_key="x", fingerprint="f"))
    for key in ("x", "batch/x"):
        assert not desk.receive(idempotency_key=key, fingerprint="f").replayed


def test_events_are_forgotten_however_many_there_are_of_others(desk: Desk) -> None:
    desk.accept("bob")
    ids = [desk.accept() for _ in range(250)]
    desk.run(records.cancel(ids[240], "alice"))
    gone = desk.run(erasure.erase(ids[240], "alice"))
    assert gone is not None
    assert gone.events == 4, "two, in the stream of all and its tenant's"
    assert ids[240] not in str(desk.connection.xrange(keys.LIVE_EVENTS))
    assert desk.run(erasure.erase_events("alice")) == 249
    assert [entry["tenant"] for _, entry in desk.connection.xrange(keys.LIVE_EVENTS)] == ["bob"]


def test_an_end_that_waits_for_its_start_keeps_nobody_waiting(desk: Desk) -> None:
    for number in range(40):
        accepted(desk, ids=(f"dead{number}",))
        desk.finish(desk.claim())
    for start in eventually(
        lambda: desk.run(webhooks.due(held_ms=60_000, limit=64, share=webhooks.Share(most=64, few=64)))
    ):
        # Its receiver rests.
        desk.run(webhooks.put_off(start, by_s=600))
    healthy = accepted(desk, ids=("healthy",), webhook=WEBHOOK.model_copy(update={"moments": ("completed",)}))
    desk.finish(desk.claim())
    assert due(desk) == [(healthy, "completed", 0)]


def test_a_retried_generation_tells_its_start_before_its_end(desk: Desk) -> None:
    id_ = accepted(desk)
    desk.fail(desk.claim(), INTERNAL, rest_s=None)
    for moment in ("start", "completed"):
        (one,) = eventually(lambda: desk.run(webhooks.due(held_ms=60_000)))
        assert one.moment == moment
        desk.run(webhooks.called(one, again_ms=None, outcome="answered 200", took_ms=5))
    desk.run(records.retry(id_, "alice", limits()))
    desk.finish(desk.claim())
    assert due(desk) == [(id_, "start", 0)]
