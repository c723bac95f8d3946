"""What dialects ask of the ledger beyond the native API: webhooks, retries, streams, counts, siblings."""

import pytest

from storage.contracts import errors, generations
from storage.ledger import calls
from tests.conftest import eventually
from tests.stores.conftest import Desk, an_edit, limits

HOOK = generations.Callback(url="http://example.com/hook", dialect="runpod", moments=("start", "completed"))
INTERNAL = errors.InternalError("broken")


def accepted(desk: Desk, *, callback: generations.Callback | None = HOOK, ids: tuple[str, ...] = ("one",)) -> str:
    order = calls.Order(
        tenant="alice", queue="edits.quick.any", edits=[an_edit()] * len(ids), ids=ids, submitted=[{}] * len(ids),
        inputs_prefix=None, limits=limits(), callback=callback,
    )  # fmt: skip
    return desk.run(calls.create(order)).ids[0]


def due(desk: Desk, held_ms: int = 60_000) -> list[tuple[str, str, int]]:
    return [(one.generation.id, one.moment, one.tries) for one in desk.run(calls.callbacks(held_ms=held_ms))]


def test_a_webhook_is_due_at_its_moments_and_held_by_whoever_takes_it(desk: Desk) -> None:
    id_ = accepted(desk)
    assert due(desk) == []
    claim = desk.claim()
    assert due(desk) == [(id_, "start", 0)]
    desk.finish(claim)
    assert due(desk) == [(id_, "completed", 0)], "the first is held"


@pytest.mark.parametrize("ending", ["finish", "fail", "cancel"])
def test_every_ending_makes_it_due(desk: Desk, ending: str) -> None:
    id_ = accepted(desk, callback=HOOK.model_copy(update={"moments": ("completed",)}))
    if ending == "cancel":
        desk.run(calls.cancel(id_, "alice"))
    elif ending == "finish":
        desk.finish(desk.claim())
    else:
        desk.run(calls.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    assert due(desk) == [(id_, "completed", 0)]


def test_what_is_not_taken_is_due_again_and_what_is_done_is_not(desk: Desk) -> None:
    accepted(desk)
    desk.claim()
    (one,) = desk.run(calls.callbacks(held_ms=60_000))
    desk.run(calls.called(one, again_ms=20, outcome="answered 500"))
    assert eventually(lambda: due(desk)) == [("one", "start", 1)]
    desk.run(calls.called(one, again_ms=None, outcome="answered 200"))
    assert due(desk, held_ms=0) == []


def test_whoever_dies_while_calling_leaves_it_to_another(desk: Desk) -> None:
    accepted(desk)
    desk.claim()
    assert due(desk, held_ms=20) == [("one", "start", 0)]
    assert eventually(lambda: due(desk)) == [("one", "start", 0)]


def test_of_several_generations_one_webhook_speaks_and_each_knows_the_others(desk: Desk) -> None:
    accepted(desk, ids=("one", "two"))
    assert desk.run(calls.read("two", "alice")).siblings == ("one", "two")
    for _ in range(2):
        desk.finish(desk.claim())
    assert {id_ for id_, _, _ in due(desk)} == {"one"}


def test_a_failed_generation_is_retried_by_its_tenant_alone(desk: Desk) -> None:
    id_ = accepted(desk)
    desk.run(calls.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    with pytest.raises(errors.NotFoundError):
        desk.run(calls.retry(id_, "bob"))
    assert desk.run(calls.retry(id_, "alice")).queue == "edits.quick.any"
    found = desk.run(calls.read(id_, "alice"))
    assert (found.status, found.attempts, found.error_code) == (generations.Status.QUEUED, 0, None)
    with pytest.raises(errors.InvalidInputError):
        desk.run(calls.retry(id_, "alice"))
    assert desk.finish(desk.claim())
    with pytest.raises(errors.InvalidInputError):
        desk.run(calls.retry(id_, "alice"))


def test_only_what_still_waits_is_purged(desk: Desk) -> None:
    accepted(desk, ids=("one", "two"))
    desk.claim()
    told = [desk.run(calls.cancel(id_, "alice", only_queued=True)) for id_ in ("one", "two")]
    assert told == ["processing", "cancelled"]


def test_a_result_is_taken_from_its_stream_once(desk: Desk) -> None:
    id_ = accepted(desk)
    assert not desk.run(calls.drain(id_, "alice")), "it is not over"
    desk.finish(desk.claim())
    assert not desk.run(calls.drain(id_, "bob"))
    assert [desk.run(calls.drain(id_, "alice")) for _ in range(2)] == [True, False]


def test_a_tenants_generations_are_counted_by_what_became_of_them(desk: Desk) -> None:
    accepted(desk, ids=("one", "two", "three", "four"))
    desk.finish(desk.claim())
    desk.run(calls.fail(desk.claim(), INTERNAL, rest_s=None, max_attempts=3))
    desk.claim()
    desk.run(calls.retry("two", "alice"))
    tally = desk.run(calls.tally("alice", "quick"))
    assert tally == calls.Tally(succeeded=1, failed=1, cancelled=0, retried=1, queued=2, processing=1)
    assert desk.run(calls.tally("bob", "quick")).queued == 0
