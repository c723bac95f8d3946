"""Promise: an accepted generation reaches exactly one terminal state, whatever process dies in between."""

import contextlib
import signal
import time

import pytest

from storage import connections, keys
from tests.conftest import eventually
from tests.faults.conftest import WORKERS, Victim
from tests.service.test_batches import line, made, over, read, rows
from tests.sse import reading

COMPLETED = "media_generation_completed"


def running_on(victim: Victim, id_: str) -> str:
    """The child that runs a generation."""
    with contextlib.closing(connections.connect(victim.stack.store)) as connection:

        def name() -> str | None:
            worker = connection.hget(keys.GENERATION + id_, "worker")
            pid = str(worker).rpartition("-")[2]
            return next((name for name, child in victim.stack.children.items() if str(child.pid) == pid), None)

        return str(eventually(name))


def under_way(victim: Victim, id_: str) -> None:
    eventually(lambda: victim.alice.get(f"/api/ai/queue/{id_}").json()["progress"]["step"] >= 1)


def test_a_killed_workers_generation_is_finished_by_another_within_a_lease_and_a_sweep(
    victim: Victim, tiny: str
) -> None:
    with reading(victim.alice) as stream:
        id_ = victim.alice.enqueue(tiny, model="slow")
        under_way(victim, id_)
        victim.signal(running_on(victim, id_), signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: victim.alice.get(f"/api/ai/queue/{id_}").json()["attempts"] == 2)
        assert time.monotonic() - killed < 3 + 0.5 + 5, "a lease, a sweep, and room for a busy machine"
        found = victim.alice.finished(id_)
        stream.wait_for(COMPLETED, id_)
    assert (found["status"], found["attempts"]) == ("succeeded", 2)
    assert [event["event"] for event in stream.of(id_)].count(COMPLETED) == 1


def test_a_frozen_worker_that_wakes_up_late_changes_nothing(victim: Victim, tiny: str) -> None:
    id_ = victim.alice.enqueue(tiny, model="slow")
    under_way(victim, id_)
    frozen = running_on(victim, id_)
    victim.signal(frozen, signal.SIGSTOP)
    try:
        found = victim.alice.finished(id_)
    finally:
        victim.signal(frozen, signal.SIGCONT)
    assert (found["status"], found["attempts"]) == ("succeeded", 2)
    second = victim.alice.enqueue(tiny, model="slow")
    assert victim.alice.finished(second)["status"] == "succeeded"
    again = victim.alice.finished(id_)
    assert (again["completed_at"], again["attempts"]) == (found["completed_at"], 2)
    assert again["result_url"].partition("?")[0] == found["result_url"].partition("?")[0]


def test_a_worker_told_to_end_finishes_what_it_runs(victim: Victim, tiny: str) -> None:
    id_ = victim.alice.enqueue(tiny, model="slow")
    under_way(victim, id_)
    worker = running_on(victim, id_)
    old = victim.signal(worker, signal.SIGTERM)
    found = victim.alice.finished(id_)
    assert (found["status"], found["attempts"]) == ("succeeded", 1)
    eventually(lambda: victim.pid(worker) != old)


@pytest.mark.parametrize(
    ("refuse", "relent"),
    [
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("REPLICAOF 127.0.0.1 9", "REPLICAOF NO ONE"),
    ],
    ids=["no replica", "no memory", "no primary any more"],
)
def test_a_store_that_refuses_writes_ends_no_worker(victim: Victim, tiny: str, refuse: str, relent: str) -> None:
    victim.await_workers()
    pids, told = [victim.pid(name) for name in WORKERS], [victim.listening(name) for name in WORKERS]
    with contextlib.closing(connections.connect(victim.stack.store)) as connection:
        connection.execute_command(*refuse.split())
        try:
            connection.execute_command("CLIENT", "KILL", "TYPE", "normal")
            eventually(lambda: all("consumer: Cannot connect" in said() for said in told))
        finally:
            connection.execute_command(*relent.split())
    assert victim.alice.finished(victim.alice.enqueue(tiny))["status"] == "succeeded"
    assert [victim.pid(name) for name in WORKERS] == pids, "what they have loaded is loaded still"


def test_tickets_that_vanish_are_replaced(victim: Victim, tiny: str) -> None:
    with victim.no_worker_moves():
        ids = [victim.alice.enqueue(tiny) for _ in range(3)]
        with contextlib.closing(connections.connect(victim.stack.store)) as connection:
            # The housekeeping worker puts them back; what matters is that somebody gets to these three.
            connection.delete(keys.BROKER + "edits.quick.any")
    assert {victim.alice.finished(id_)["status"] for id_ in ids} == {"succeeded"}


def test_a_killed_housekeeping_worker_is_replaced_and_goes_on(victim: Victim, tiny: str) -> None:
    old = victim.signal("housekeeping", signal.SIGKILL)
    eventually(lambda: victim.pid("housekeeping") != old)
    id_ = victim.alice.enqueue(tiny, model="slow")
    under_way(victim, id_)
    victim.signal(running_on(victim, id_), signal.SIGKILL)
    assert victim.alice.finished(id_)["status"] == "succeeded"


def test_what_was_acknowledged_survives_the_death_of_the_store(victim: Victim, tiny: str) -> None:
    ids = [victim.alice.enqueue(tiny, model="slow") for _ in range(4)]
    victim.signal("valkey", signal.SIGKILL)
    eventually(lambda: victim.alice.get("/health/ready").status_code == 200)
    for id_ in ids:
        found = eventually(lambda id_=id_: _terminal(victim, id_), within_s=60)
        assert found["status"] == "succeeded"


def _terminal(victim: Victim, id_: str) -> dict[str, object] | None:
    found: dict[str, object] = victim.alice.get(f"/api/ai/queue/{id_}").json()
    return found if found["status"] in ("succeeded", "failed", "cancelled") else None


def test_while_the_store_is_gone_requests_are_refused_in_time_and_then_work_again(victim: Victim, tiny: str) -> None:
    victim.signal("valkey", signal.SIGSTOP)
    try:
        began = time.monotonic()
        answer = victim.alice.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": tiny})
        assert time.monotonic() - began < 4
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    finally:
        victim.signal("valkey", signal.SIGCONT)
    assert victim.alice.finished(victim.alice.enqueue(tiny))["status"] == "succeeded"


def test_while_the_object_store_is_gone_a_finished_picture_is_kept_and_uploaded_later(
    victim: Victim, tiny: str
) -> None:
    id_ = victim.alice.enqueue(tiny, model="slow")
    under_way(victim, id_)
    victim.signal("s3", signal.SIGKILL)
    found = victim.alice.finished(id_)
    assert (found["status"], found["attempts"]) == ("succeeded", 1)


def test_an_api_that_dies_is_replaced_and_its_readers_resume(victim: Victim, tiny: str) -> None:
    with reading(victim.alice) as stream:
        id_ = victim.alice.enqueue(tiny, model="slow")
        last = stream.wait_for("media_generation_started", id_)["id"]
        killed = victim.signal("api", signal.SIGKILL)
        stream.ended.wait(10)
    eventually(lambda: victim.is_back(killed))
    with reading(victim.alice, headers={"Last-Event-ID": last}) as stream:
        stream.wait_for(COMPLETED, id_)


def test_a_stall_of_the_store_costs_no_healthy_edit_a_second_run(victim: Victim, tiny: str) -> None:
    ids = [victim.alice.enqueue(tiny, model="slow") for _ in range(2)]
    for id_ in ids:
        under_way(victim, id_)
    victim.signal("valkey", signal.SIGSTOP)
    stalled = time.monotonic()
    try:
        # Longer than a lease of three seconds, and than what the edits still had to run.
        eventually(lambda: time.monotonic() - stalled > 8)
    finally:
        victim.signal("valkey", signal.SIGCONT)
    for id_ in ids:
        found = eventually(lambda id_=id_: _terminal(victim, id_), within_s=60)
        assert (found["status"], found["attempts"]) == ("succeeded", 1)
    # Nobody became deaf: both workers are woken, and soon.
    ids = [victim.alice.enqueue(tiny, model="slow") for _ in range(2)]
    for id_ in ids:
        eventually(
            lambda id_=id_: victim.alice.get(f"/api/ai/queue/{id_}").json()["progress"]["step"] >= 1, within_s=25
        )


def test_a_batch_outlives_the_api_with_each_line_run_once(victim: Victim, tiny: str) -> None:
    alice, count = victim.alice, 120
    # The first waits until the last is submitted, and longer.
    lines = [line(str(number), tiny, model="slow" if number < 2 else "quick") for number in range(count)]
    id_ = made(alice, lines, **{"Idempotency-Key": "outlives"})["batch_id"]
    for _ in range(2):
        before = read(alice, id_)["counts"]["waiting"]
        eventually(lambda before=before: read(alice, id_)["counts"]["waiting"] < before)  # type: ignore[misc]
        killed = victim.signal("api", signal.SIGKILL)
        eventually(lambda killed=killed: victim.is_back(killed))  # type: ignore[misc]
        if not read(alice, id_)["counts"]["waiting"]:
            break
    done = over(alice, id_)
    assert done["counts"]["succeeded"] == count
    found = rows(done)
    assert [one["custom_id"] for one in found] == [str(number) for number in range(count)]
    assert len({one["generation_id"] for one in found}) == count
    assert alice.get(f"/api/ai/queue?status=all&limit=200&group={id_}").json()["count"] == count
