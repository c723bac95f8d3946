"""What the ledger does for the fleet: samples, routes, prepared models, budgets."""

import pytest

from storage import keys
from storage.contracts import errors, generations, samples
from storage.ledger import claims, presence, records, recovery, usage
from tests.conftest import eventually
from tests.stores.conftest import SAMPLE, TARGET, Desk, limits

MONTH = "2026-11"


def test_every_execution_leaves_a_sample_and_only_the_latest_are_kept(desk: Desk) -> None:
    for _ in range(3):
        desk.accept()
        desk.finish(desk.claim())
    assert desk.run(usage.samples_of("quick")) == {TARGET: (SAMPLE,) * 3}
    assert desk.run(usage.samples_of("quic")) == {}
    for _ in range(usage.MOST_SAMPLES):
        desk.connection.lpush(keys.SAMPLES + TARGET.name, SAMPLE.model_dump_json())
    desk.accept()
    desk.finish(desk.claim())
    assert desk.connection.llen(keys.SAMPLES + TARGET.name) == usage.MOST_SAMPLES


def test_what_fails_leaves_one_too_and_so_does_a_worker_that_is_lost(desk: Desk) -> None:
    desk.accept()
    failed = samples.Sample(at_ms=1, outcome="out_of_memory")
    claim = desk.claim()
    desk.run(claims.fail(claim, errors.OutOfMemoryError("x"), rest_s=0, max_attempts=3, target=TARGET, sample=failed))
    desk.run(recovery.wake())
    desk.claim(lease_ms=1)
    sweep = recovery.recover(lease_ms=1, stall_ms=60_000, max_attempts=3, max_losses=2)
    eventually(lambda: desk.run(sweep))
    lost, first = desk.run(usage.samples_of("quick"))[TARGET]
    assert (lost.outcome, first) == ("worker_lost", failed)


def test_a_record_says_where_it_runs(desk: Desk) -> None:
    id_ = desk.accept()
    desk.run(claims.claim(claims.Claimant(worker="w", gpu_type="h200", region="north"), 60_000, ["edits.quick.any"]))
    found = desk.read(id_)
    assert (found.worker, found.gpu_type, found.region, found.queue) == ("w", "h200", "north", "edits.quick.any")


def test_work_that_others_are_ready_for_is_left_to_them_for_a_moment(desk: Desk) -> None:
    id_ = desk.accept()

    def claim(deferral_ms: int) -> generations.Claim | claims.Deferred | None:
        return desk.run(
            claims.claim(
                claims.Claimant(worker="cold"),
                60_000,
                ["edits.quick.any"],
                preferred=0,
                deferred=1,
                deferral_ms=deferral_ms,
            )
        )

    assert claim(60_000) == claims.Deferred(queue="edits.quick.any")
    taken = eventually(lambda: (one := claim(30)) and not isinstance(one, claims.Deferred) and one)
    assert taken.id == id_
    assert claim(0) is None


CHAIN = ("edits.quick.h100", "edits.quick.h200", "edits.quick.cpu")


def test_what_waits_for_workers_that_are_not_there_moves_to_the_next_that_are(desk: Desk) -> None:
    id_ = desk.accept(queue=CHAIN[0], chain=CHAIN)
    assert desk.run(recovery.reroute([], [])) == {}
    assert desk.run(recovery.reroute([CHAIN[0]], [CHAIN[2]])) == {}, "its own workers were there a moment ago"
    assert desk.run(recovery.reroute([], [CHAIN[2], CHAIN[1]])) == {id_: CHAIN[1]}
    assert desk.run(recovery.reroute([], [CHAIN[2], CHAIN[1]])) == {}, "it waits where it is served"
    assert desk.run(claims.claim(claims.Claimant(worker="w"), 60_000, [CHAIN[0]])) is None
    claim = desk.run(claims.claim(claims.Claimant(worker="w"), 60_000, [CHAIN[1]]))
    assert isinstance(claim, generations.Claim)
    assert desk.run(recovery.reroute([], ["edits.quick.cpu"])) == {}, "what runs stays where it is"
    assert desk.connection.zcard(keys.CHAINED) == 0
    assert not [row for row in desk.run(recovery.backlog()) if row.pending]


def test_what_has_one_way_only_never_moves(desk: Desk) -> None:
    desk.accept(queue=CHAIN[0])
    assert desk.run(recovery.reroute([], [CHAIN[1]])) == {}


def test_what_cannot_move_hides_nobody(desk: Desk) -> None:
    for _ in range(recovery.SWEEP + 20):
        desk.accept(queue="edits.quick.b200", chain=("edits.quick.b200", "edits.quick.b300"))
    id_ = desk.accept(queue=CHAIN[0], chain=CHAIN)
    assert eventually(lambda: desk.run(recovery.reroute([], [CHAIN[2]]))) == {id_: CHAIN[2]}


def _wanted(desk: Desk, worker: str = "w1", gpu_type: str = "h100", region: str = "north") -> dict[str, presence.Wish]:
    claimant = claims.Claimant(worker=worker, gpu_type=gpu_type, region=region)
    return {model: wish.how for model, wish in desk.run(presence.wanted(claimant, ["quick", "slow"])).items()}


def _want(
    desk: Desk,
    how: presence.Wish,
    gpu_type: str = "any",
    region: str = "any",
    seconds: float = 60,
    tenant: str = "alice",
) -> bool:
    target = samples.Target(model="quick", gpu_type=gpu_type, region=region)
    return bool(desk.run(presence.want(target, how, tenant=tenant, seconds=seconds)))


def test_a_model_that_is_wanted_once_is_told_to_one_worker_once(desk: Desk) -> None:
    _want(desk, "once")
    assert [_wanted(desk, worker) for worker in ("w1", "w2", "w1")] == [{"quick": "once"}, {}, {}]


def test_a_model_that_is_kept_stays_with_its_worker_until_that_is_gone(desk: Desk) -> None:
    _want(desk, "always")
    assert _wanted(desk) == {"quick": "always"}
    desk.connection.set(keys.ALIVE + "w1", "{}", ex=60)
    assert (_wanted(desk, "w2"), _wanted(desk, "w1")) == ({}, {"quick": "always"})
    desk.connection.delete(keys.ALIVE + "w1")
    assert _wanted(desk, "w2") == {"quick": "always"}


@pytest.mark.parametrize(("gpu_type", "region"), [("h200", "any"), ("any", "south")])
def test_a_wish_for_another_place_is_not_told(desk: Desk, gpu_type: str, region: str) -> None:
    _want(desk, "once", gpu_type, region)
    assert _wanted(desk) == {}
    assert _wanted(desk, "w2", *(one if one != "any" else "north" for one in (gpu_type, region))) == {"quick": "once"}


def test_letting_go_ends_every_wish_it_covers_and_is_told_to_all(desk: Desk) -> None:
    _want(desk, "always", "h100")
    _want(desk, "once")
    _want(desk, "never", seconds=1)
    assert [_wanted(desk, worker) for worker in ("w1", "w2")] == [{"quick": "never"}] * 2
    eventually(lambda: not _wanted(desk))
    assert desk.connection.hlen(keys.WANTED) == 0


def test_to_be_kept_outlasts_being_wanted_once(desk: Desk) -> None:
    _want(desk, "always")
    _want(desk, "once")
    assert [_wanted(desk) for _ in range(2)] == [{"quick": "always"}] * 2


def test_a_worker_takes_one_wish_at_a_time_and_a_named_one_its_own(desk: Desk) -> None:
    _want(desk, "always")
    slow = samples.Target(model="slow", gpu_type="any", region="any")
    desk.run(presence.want(slow, "always", tenant="alice", seconds=60))
    assert len(_wanted(desk)) == 1
    assert len(_wanted(desk)) == 2
    desk.run(presence.want(slow, "never", tenant="alice", seconds=0))
    desk.run(presence.want(slow, "once", tenant="alice", seconds=60, worker="w2"))
    desk.connection.set(keys.ALIVE + "w2", "{}", ex=60)
    assert "slow" not in _wanted(desk)
    assert _wanted(desk, "w2")["slow"] == "once"


def test_a_model_that_another_tenant_keeps_or_is_starting_is_not_let_go(desk: Desk) -> None:
    for how in ("always", "once"):
        _want(desk, how, tenant="alice")  # type: ignore[arg-type]
        assert not _want(desk, "never", tenant="bob")
        assert _wanted(desk) == {"quick": how}
        _want(desk, "never", tenant="alice")
        _want(desk, "never", tenant="alice", seconds=0)
        eventually(lambda: not _wanted(desk))


def test_a_model_that_several_keep_goes_with_the_last_of_them(desk: Desk) -> None:
    _want(desk, "always", tenant="alice")
    _want(desk, "always", "h100", tenant="bob")
    _want(desk, "always", tenant="bob")
    assert not _want(desk, "never", tenant="alice")
    assert _wanted(desk) == {"quick": "always"}
    assert _want(desk, "never", tenant="bob")
    assert _wanted(desk) == {"quick": "never"}


def test_a_narrower_or_wider_target_does_not_let_go_what_another_keeps(desk: Desk) -> None:
    _want(desk, "always", tenant="bob")
    assert not _want(desk, "never", "h100", tenant="alice")
    _want(desk, "never", tenant="bob")
    _want(desk, "always", "h100", tenant="bob")
    assert not _want(desk, "never", "any", "north", tenant="alice")
    assert _want(desk, "never", "h200", tenant="alice"), "elsewhere it is"


def test_to_start_what_another_keeps_makes_nobody_a_keeper(desk: Desk) -> None:
    _want(desk, "once", tenant="bob")
    _want(desk, "always", tenant="alice")
    _want(desk, "once", tenant="bob")
    assert _want(desk, "never", tenant="alice")
    assert _wanted(desk) == {"quick": "never"}


def test_wanting_it_again_ends_the_letting_go(desk: Desk) -> None:
    _want(desk, "never")
    _want(desk, "once", "h100")
    assert _wanted(desk) == {"quick": "once"}


def _spend(desk: Desk, *, budget: int, reserve: int = 100, count: int = 1) -> str:
    return desk.receive(month=MONTH, allowance=records.Allowance(budget=budget, reserve=reserve), count=count).ids[0]


def _priced(desk: Desk, claim: generations.Claim, cost_usd: float) -> bool:
    from tests.stores.conftest import a_result

    result = a_result(claim).model_copy(update={"cost_usd": cost_usd})
    return desk.run(claims.finish(claim, result, TARGET, SAMPLE))


def test_a_budget_is_held_against_what_is_under_way_and_refuses_before_it_is_overdrawn(desk: Desk) -> None:
    _spend(desk, budget=250, count=2)
    with pytest.raises(errors.BudgetExceededError):
        _spend(desk, budget=250)
    assert desk.run(usage.usage("alice", MONTH))["reserved"] == 200
    _priced(desk, desk.claim(), 0.00003)
    assert desk.run(usage.usage("alice", MONTH)) == {
        "reserved": 100, "spent": 30, "quick:count": 1, "quick:cost": 30, "quick:pixels": 4096, "quick:gpu_ms": 20,
    }  # fmt: skip
    _spend(desk, budget=250)
    assert desk.receive(month="2026-12", allowance=records.Allowance(budget=250, reserve=250)).ids, (
        "another month has its own"
    )


@pytest.mark.parametrize("ending", ["cancel", "fail"])
def test_what_comes_to_nothing_costs_nothing(desk: Desk, ending: str) -> None:
    id_ = _spend(desk, budget=100)
    if ending == "cancel":
        desk.run(records.cancel(id_, "alice"))
    else:
        desk.fail(desk.claim(), errors.InternalError("x"), None)
    assert desk.run(usage.usage("alice", MONTH)) == {"reserved": 0}
    _spend(desk, budget=100)


def test_a_retry_is_reserved_for_again_and_refused_without_means(desk: Desk) -> None:
    id_ = _spend(desk, budget=100)
    desk.fail(desk.claim(), errors.InternalError("x"), None)
    other = _spend(desk, budget=100)
    with pytest.raises(errors.BudgetExceededError):
        desk.run(records.retry(id_, "alice", limits(), budget=100))
    desk.run(records.cancel(other, "alice"))
    desk.run(records.retry(id_, "alice", limits(), budget=100))
    assert desk.run(usage.usage("alice", MONTH))["reserved"] == 100
