"""Random walks through the ledger: whatever API, workers and housekeeping do in whatever order, the invariants hold."""

import contextlib
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from storage import connections, keys
from storage.contracts import edits, errors, generations
from storage.ledger import claims, records, recovery
from storage.ledger.execution import RedisLedger
from storage.settings import StoreSettings
from tests.stores.conftest import QUEUE, SAMPLE, TARGET, Desk, a_result, limits

Status = generations.Status
LEGAL = generations.TRANSITIONS
VERSION = edits.RECORD_VERSION


def walk(desk: Desk) -> type[RuleBasedStateMachine]:
    class Walk(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            desk.connection.flushdb()
            self.last: dict[str, tuple[str, Status, int]] = {}
            self.claims: list[generations.Claim] = []
            self.newer: set[str] = set()
            self.retried = 0

        @rule(
            tenant=st.sampled_from(["alice", "bob", "carol"]),
            priority=st.integers(0, 9),
            count=st.integers(1, 4),
            queue_ttl_s=st.sampled_from([-1, 3600]),
            is_newer=st.booleans(),
        )
        def create(self, tenant: str, priority: int, count: int, queue_ttl_s: int, is_newer: bool) -> None:
            # Ids by number: random ones would order what is equal differently each time, and a walk could not be repeated.
            ids = [f"{len(self.last) + n:04}" for n in range(count)]
            bounds = limits(queue_ttl_s=queue_ttl_s)
            desk.receive(tenant, count=count, ids=ids, priority=priority, limits=bounds)
            self.last |= dict.fromkeys(ids, (tenant, Status.QUEUED, 0))
            if is_newer:
                self.newer |= set(ids)
                for id_ in ids:
                    desk.connection.hset(keys.GENERATION + id_, "version", VERSION + 1)

        @rule(lease_ms=st.sampled_from([-1000, 60_000]), is_older=st.booleans())
        def claim(self, lease_ms: int, is_older: bool) -> None:
            newest = VERSION if is_older else VERSION + 1
            claim = desk.run(claims.claim(claims.Claimant(worker="w"), lease_ms, [QUEUE], newest=newest))
            waiting = {id_ for id_, (_, status, _) in self.last.items() if status is Status.QUEUED} - self.resting()
            readable = waiting - self.newer if is_older else waiting
            assert (claim is not None) == bool(readable)
            if claim:
                assert isinstance(claim, generations.Claim)
                assert claim.id in readable
                self.claims.append(claim)

        def resting(self) -> set[str]:
            return set(desk.connection.zrange(keys.DUE, 0, -1))  # type: ignore[arg-type]

        @precondition(lambda self: self.claims)
        @rule(data=st.data(), action=st.sampled_from(["finish", "fail", "retry", "rest", "release", "beat"]))
        def work(self, data: Any, action: str) -> None:
            claim = data.draw(st.sampled_from(self.claims))
            _, before, token = self.last[claim.id]
            done = {
                "finish": lambda: desk.run(claims.finish(claim, a_result(claim), TARGET, SAMPLE)),
                "fail": lambda: desk.fail(claim, errors.InvalidInputError("x"), None) != "lost",
                "rest": lambda: desk.fail(claim, errors.WorkerLostError("x"), 3600) != "lost",
                "retry": lambda: desk.fail(claim, errors.WorkerLostError("x")) != "lost",
                "release": lambda: desk.run(claims.release(claim)),
                "beat": lambda: desk.run(claims.beat(claim, 60_000, 1, generations.Phase.EDITING)),
            }[action]()
            current = before is Status.PROCESSING and token == claim.token
            repeated = action == "finish" and before is Status.SUCCEEDED and token == claim.token
            assert done == (current or repeated)

        @precondition(lambda self: self.last)
        @rule(data=st.data())
        def cancel(self, data: Any) -> None:
            id_ = data.draw(st.sampled_from(sorted(self.last)))
            tenant, before, _ = self.last[id_]
            assert desk.run(records.cancel(id_, tenant)) == ("terminal" if before.terminal else "cancelled")

        @rule()
        def recover(self) -> None:
            desk.run(recovery.recover(lease_ms=60_000, stall_ms=10**9, max_attempts=3, max_losses=2))

        @rule()
        def wake(self) -> None:
            # The rests are ended by hand: a walk that depended on the clock could not be repeated.
            for id_ in self.resting():
                desk.connection.zadd(keys.DUE, {id_: 0})
            desk.run(recovery.wake())

        @rule()
        def retry_parked(self) -> None:
            for record in sorted(desk.run(recovery.parked()), key=lambda record: record["id"]):
                assert desk.run(recovery.unpark(record["id"], "retry", queue_ttl_s=3600))
                tenant, _, token = self.last[record["id"]]
                self.last[record["id"]] = (tenant, Status.QUEUED, token)
                self.retried += 1

        @invariant()
        def every_generation_moved_legally_and_indexes_agree(self) -> None:
            queued = leased = 0
            for id_, (tenant, before, token_before) in self.last.items():
                found = desk.read(id_, tenant)
                token = int(str(desk.connection.hget(keys.GENERATION + id_, "token")))
                moved_twice = Status.QUEUED if before is Status.PROCESSING else before
                assert found.status is before or found.status in LEGAL[before] | LEGAL[moved_twice]
                assert token >= token_before
                assert found.attempts <= 3
                leased_until = desk.connection.zscore(keys.LEASES, id_)
                active = desk.connection.zscore(keys.ACTIVE + tenant, id_)
                waits = desk.connection.zscore(f"{keys.PENDING}{QUEUE}:{tenant}", id_)
                rests = desk.connection.zscore(keys.DUE, id_)
                deadline = desk.connection.zscore(keys.DEADLINES, id_)
                assert (leased_until is not None) == (found.status is Status.PROCESSING)
                assert (waits is not None) + (rests is not None) == (found.status is Status.QUEUED)
                assert (deadline is not None) == (found.status is Status.QUEUED)
                assert (active is not None) == (not found.status.terminal)
                queued += waits is not None
                leased += leased_until is not None
                self.last[id_] = (tenant, found.status, token)
            assert int(desk.connection.hget(keys.DEPTHS, QUEUE) or 0) == queued  # type: ignore[arg-type]
            assert desk.connection.zcard(keys.LEASES) == leased

        @invariant()
        def the_ring_holds_each_waiting_tenant_once(self) -> None:
            ring = desk.connection.lrange(keys.RING + QUEUE, 0, -1)
            resting = self.resting()
            queued = [
                id_ for id_, (_, status, _) in self.last.items() if status is Status.QUEUED and id_ not in resting
            ]
            waiting = {self.last[id_][0] for id_ in queued}
            assert sorted(ring) == sorted(waiting)  # type: ignore[arg-type, type-var]

        def teardown(self) -> None:
            if self.retried:
                return  # a retry makes a second ending of a generation, on purpose
            for tenant in ("alice", "bob", "carol"):
                entries: Any = desk.connection.xrange(keys.EVENTS + tenant)
                ended = [f["id"] for _, f in entries if f["type"].endswith(("completed", "cancelled"))]
                expected = [id_ for id_, (owner, status, _) in self.last.items() if owner == tenant and status.terminal]
                assert sorted(ended) == sorted(expected), "one terminal event for each terminal generation"

    return Walk


@pytest.mark.timeout(300)
def test_no_walk_through_the_ledger_breaks_an_invariant(settings: StoreSettings) -> None:
    with contextlib.closing(connections.connect(settings)) as connection:
        machine = walk(Desk(RedisLedger(connection), connection))
        bounds = hypothesis.settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        run_state_machine_as_test(machine, settings=bounds)  # type: ignore[no-untyped-call]
