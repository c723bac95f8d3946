"""Promise: a worker may die in any phase, and a connection may die without a word; the generation ends once, and soon."""

import contextlib
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import requests

from storage import connections, keys
from storage.contracts.generations import Phase
from storage.ledger import claims
from storage.ledger.execution import RedisLedger
from tests.conftest import eventually
from tests.faults.conftest import SLEEPERS, Victim, supervised
from tests.faults.oracle.proxy import Proxy
from tests.faults.test_recovery import running_on, under_way
from tests.sse import reading

COMPLETED = "media_generation_completed"


@dataclass
class Patient:
    """A stack with a proxy before each store, and a connection of our own that goes past them."""

    victim: Victim
    redis: Proxy
    objects: Proxy
    store: redis.Redis

    def phase(self, id_: str) -> object:
        return self.store.hget(keys.GENERATION + id_, "phase")

    def stored_results(self, id_: str) -> list[Path]:
        folder = self.victim.stack.options.data_dir / "objects" / "darkroom" / "results" / "alice" / id_
        return [file for file in folder.rglob("*") if file.is_file()]

    def check_it_ended_once(self, id_: str, *, attempts: tuple[int, ...]) -> None:
        """Succeeded in one of these attempts, told of once, and downloadable."""
        found = eventually(lambda: self._ended(id_), within_s=40)
        assert found["status"] == "succeeded"
        assert found["attempts"] in attempts
        assert requests.get(found["result_url"], timeout=10).status_code == 200
        with reading(self.victim.alice) as stream:
            stream.wait_for(COMPLETED, id_)
        assert [event["event"] for event in stream.of(id_)].count(COMPLETED) == 1

    def _ended(self, id_: str) -> dict[str, object] | None:
        answer = self.victim.alice.get(f"/api/ai/queue/{id_}")
        if answer.status_code != 200 or answer.json()["status"] in ("queued", "processing"):
            return None
        found: dict[str, object] = answer.json()
        return found


@contextlib.contextmanager
def admitted(folder: Path) -> Iterator[Patient]:
    proxies: list[Proxy] = []

    def through(port: int) -> int:
        proxies.append(Proxy(port))
        return proxies[-1].port

    with contextlib.ExitStack() as cleanup:
        victim = cleanup.enter_context(supervised(folder, through=through, DARKROOM_WORKERS="2", **SLEEPERS))
        store = cleanup.enter_context(contextlib.closing(connections.connect(victim.stack.store)))
        for proxy in proxies:
            cleanup.callback(proxy.close)
        yield Patient(victim, *proxies, store=store)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patient]:
    with admitted(tmp_path_factory.mktemp("patient")) as one:
        yield one


def test_a_worker_that_died_as_it_claimed(patient: Patient, tiny: str) -> None:
    with patient.victim.no_worker_moves():
        id_ = patient.victim.alice.enqueue(tiny)
        # The script ran; who asked for it was gone before the answer.
        claim = RedisLedger(patient.store).run(claims.claim(claims.Claimant(worker="gone"), 3000, ["edits.quick.any"]))
        assert claim is not None
        assert claim.id == id_
    patient.check_it_ended_once(id_, attempts=(2,))


def test_a_worker_killed_while_it_prepares(patient: Patient, tiny: str) -> None:
    with contextlib.ExitStack() as held:
        with patient.victim.no_worker_moves():
            id_ = patient.victim.alice.enqueue(tiny)
            held.enter_context(patient.objects.frozen())
        worker = running_on(patient.victim, id_)
        eventually(lambda: patient.phase(id_) == Phase.PREPARING)
        patient.victim.signal(worker, signal.SIGKILL)
    patient.check_it_ended_once(id_, attempts=(2,))


def test_a_worker_killed_while_it_uploads(patient: Patient, tiny: str) -> None:
    id_ = patient.victim.alice.enqueue(tiny, model="slow")
    under_way(patient.victim, id_)
    with patient.objects.frozen():
        eventually(lambda: patient.phase(id_) == Phase.FINISHING)
        patient.victim.signal(running_on(patient.victim, id_), signal.SIGKILL)
    patient.check_it_ended_once(id_, attempts=(2,))


def test_a_worker_killed_between_upload_and_publication(patient: Patient, tiny: str) -> None:
    id_ = patient.victim.alice.enqueue(tiny, model="slow")
    under_way(patient.victim, id_)
    worker = running_on(patient.victim, id_)
    with patient.redis.frozen():
        eventually(lambda: patient.stored_results(id_))
        patient.victim.signal(worker, signal.SIGKILL)
    # What it had sent before it died may still arrive: then it was published after all.
    patient.check_it_ended_once(id_, attempts=(1, 2))


def test_a_worker_killed_just_after_publication(patient: Patient, tiny: str) -> None:
    id_ = patient.victim.alice.enqueue(tiny, model="slow")
    worker = running_on(patient.victim, id_)
    eventually(lambda: patient.store.hget(keys.GENERATION + id_, "status") == "succeeded")
    patient.victim.signal(worker, signal.SIGKILL)
    patient.check_it_ended_once(id_, attempts=(1,))


@pytest.fixture
def fresh_patient(tmp_path: Path) -> Iterator[Patient]:
    """One of its own: connections that nobody has used since stay stranded."""
    with admitted(tmp_path) as one:
        yield one


def test_connections_that_died_without_a_word_are_noticed_on_both_sides(fresh_patient: Patient, tiny: str) -> None:
    patient = fresh_patient
    alice = patient.victim.alice
    before = alice.enqueue(tiny)
    with reading(alice) as stream:
        # The stream is past its replay and lives from the hub alone.
        stream.wait_for(COMPLETED, before)
        patient.redis.strand()
        stranded = time.monotonic()
        id_ = eventually(lambda: _accepted(patient, tiny))
        stream.wait_for(COMPLETED, id_)
        assert time.monotonic() - stranded < 15
    patient.check_it_ended_once(id_, attempts=(1,))


def _accepted(patient: Patient, image: str) -> str | None:
    body = {"model": "quick", "prompt": "x", "input_image": image}
    answer = patient.victim.alice.post("/api/ai/queue", body)
    return str(answer.json()["generations"][0]["generation_id"]) if answer.status_code == 200 else None
