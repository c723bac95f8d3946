"""Promise, with replicas that are waited for: nothing that was acknowledged is lost with the primary, and nothing ends twice."""

import asyncio
import contextlib
import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from typing import TypeVar

import pytest
from pydantic import SecretStr

from storage import connections
from storage.contracts import errors, generations
from storage.events import EventLog
from storage.ledger import call, claims, control, records
from storage.ledger.execution import AsyncRedisLedger, RedisLedger, Replicas
from storage.settings import StoreSettings
from tests.conftest import eventually
from tests.faults.failover.servers import Servers, hurt, replicated
from tests.stores.conftest import QUEUE, SAMPLE, TARGET, a_result, a_submission, limits
from workers.claiming import Claiming

T = TypeVar("T")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with replicated(tmp_path_factory.mktemp("replicated")) as one:
        yield one


@pytest.fixture
def settings(servers: Servers) -> StoreSettings:
    return StoreSettings(REDIS_URL=SecretStr(servers.url), wait_replicas=1)


@contextlib.contextmanager
def opened(settings: StoreSettings) -> Iterator[RedisLedger]:
    with contextlib.closing(connections.connect(settings)) as connection:
        yield RedisLedger(connection, Replicas.of(settings))


def creation(id_: str) -> call.Call[records.Created]:
    return records.create(a_submission(), tenant="alice", ids=[id_], queue=QUEUE, limits=limits(max_active=10**6))


def a_claim() -> call.Call[object]:
    return claims.claim(claims.Claimant(worker="w1"), 60_000, [QUEUE])


def patiently(ledger: RedisLedger, call: call.Call[T]) -> T:
    """Its outcome, asked for until it counts."""
    while True:
        with contextlib.suppress(errors.StoreUnavailableError):
            return ledger.run(call)
        time.sleep(0.05)


class Load(threading.Thread):
    """Accepts, claims and finishes, and remembers what it was told."""

    def __init__(self, settings: StoreSettings) -> None:
        super().__init__()
        self._settings = settings
        self.stopping = threading.Event()
        self.accepted: list[str] = []
        self.claimed: list[tuple[str, str]] = []
        self.finished: list[str] = []
        self.refused = 0

    def run(self) -> None:
        with opened(self._settings) as ledger:
            while not self.stopping.is_set():
                self._step(ledger)

    def _step(self, ledger: RedisLedger) -> None:
        id_ = str(uuid.uuid4())
        try:
            ledger.run(creation(id_))
            self.accepted.append(id_)
            claim = ledger.run(a_claim())
        except errors.StoreUnavailableError:
            self.refused += 1
            time.sleep(0.02)
            return
        if isinstance(claim, generations.Claim):
            self.claimed.append((claim.id, claim.token))
            # As a worker does, whose work is done.
            assert patiently(ledger, claims.finish(claim, a_result(claim), TARGET, SAMPLE))
            self.finished.append(claim.id)


def test_what_was_acknowledged_outlives_the_primary(servers: Servers, settings: StoreSettings) -> None:
    threads = [Load(settings) for _ in range(3)]
    for thread in threads:
        thread.start()
    for is_frozen in (False, True):
        done = sum(len(thread.finished) for thread in threads)
        eventually(lambda done=done: sum(len(thread.finished) for thread in threads) > done + 30)  # type: ignore[misc]
        hurt(servers, is_frozen=is_frozen, away_s=1)
    for thread in threads:
        thread.stopping.set()
        thread.join()
    accepted = [id_ for thread in threads for id_ in thread.accepted]
    claimed = [pair for thread in threads for pair in thread.claimed]
    finished = [id_ for thread in threads for id_ in thread.finished]
    assert any(thread.refused for thread in threads), "there was no primary for a while"
    assert len(set(claimed)) == len(claimed), "no fencing token was given out twice"
    assert len(set(finished)) == len(finished)
    with opened(settings) as ledger:
        found = {id_: patiently(ledger, records.read(id_, "alice")).status for id_ in {*accepted, *finished}}
    assert all(found[id_] == "succeeded" for id_ in finished)
    assert all(status in ("queued", "succeeded", "processing") for status in found.values())


def test_a_replica_that_is_in_step_is_not_waited_for_until_it_answers_by_itself(settings: StoreSettings) -> None:
    def took_s() -> float:
        began = time.monotonic()
        ledger.run(control.barrier())
        return time.monotonic() - began

    with opened(settings) as ledger:
        # A replica answers by itself once a second.
        assert statistics.median(took_s() for _ in range(15)) < 0.3


@pytest.fixture
def without_replicas(servers: Servers) -> Iterator[int]:
    """The primary's port, while both others stand still. It has noticed that they do, but for what it lets through of old."""
    port = servers.primary()
    others = [one for one in servers.ports if one != port]
    with contextlib.closing(servers.connect(port)) as connection:
        connection.config_set("min-replicas-to-write", 0)
        for one in others:
            servers.freeze_server(one)
        yield port
        for one in others:
            servers.go_on(one)
        connection.config_set("min-replicas-to-write", 1)
    eventually(servers.is_whole)


def test_nothing_counts_that_no_replica_has_written(settings: StoreSettings, without_replicas: int) -> None:
    id_ = str(uuid.uuid4())
    with opened(settings) as ledger:
        with pytest.raises(errors.StoreUnavailableError, match="No replica has written it yet") as caught:
            ledger.run(creation(id_))
        assert isinstance(caught.value.outcome, records.Created)

        class Keeper:
            lease_ms = 60_000

        claiming = Claiming(claimant=claims.Claimant(worker="w1"), queues=[QUEUE], ledger=ledger, keeper=Keeper())  # type: ignore[arg-type]
        with pytest.raises(errors.StoreUnavailableError):
            claiming.claim()
        # What could be lost is handed back, and its attempt is not counted.
        found = ledger.run(records.read(id_, "alice"))
        assert (found.status, found.attempts) == ("queued", 0)

    async def told() -> None:
        async with contextlib.aclosing(connections.connect_async(settings)) as connection:
            asynchronous = AsyncRedisLedger(connection, Replicas.of(settings))
            log = EventLog(connection, connection, confirm=asynchronous.confirm, replicas=1)
            with pytest.raises(errors.StoreUnavailableError):
                await log.replay("alice", "0-0")
            with pytest.raises(errors.StoreUnavailableError):
                await asynchronous.confirm()

    asyncio.run(told())


def test_a_server_that_is_no_primary_is_not_followed(servers: Servers) -> None:
    replica = next(port for port in servers.ports if port != servers.primary())
    url = SecretStr(f"redis://:{servers.password}@127.0.0.1:{replica}/0")

    async def followed() -> None:
        async with contextlib.aclosing(connections.connect_async(StoreSettings(REDIS_URL=url))) as connection:
            log = EventLog(connection, connection, replicas=1)
            for read in (log.follow("0-0", 10, 10), log.replay("alice", "0-0"), log.latest(), log.gap("0-0")):
                with pytest.raises(errors.StoreUnavailableError, match="no primary"):
                    await read

    asyncio.run(followed())
