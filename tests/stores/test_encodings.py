"""Prompts that are encoded by another worker: should one die, hang or refuse, the edit goes on."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from storage import keys
from storage.contracts import errors
from storage.ledger import encodings, records
from storage.ledger.execution import RedisLedger
from tests.conftest import eventually
from tests.stores.conftest import Desk, an_edit
from workers import remote_encoding
from workers.encoding import EXIT_GPU_FAULT, EXIT_HANGING, Encoding
from workers.leases import Lease
from workers.remote_encoding import RemoteEncoding

REGION = "local"
WAITING = f"{keys.ENCODINGS}{REGION}:quick"


class Store:
    """An object store in memory, which refuses to store while `is_down`."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.is_down = False

    def put(self, key: str, body: bytes, content_type: str) -> None:
        if self.is_down:
            raise errors.ObjectsUnavailableError("down")
        self.objects[key] = body

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise errors.NotFoundError
        return self.objects[key]

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)


class TextEncoder:
    """Encodes a prompt as itself; first does what it is told."""

    def __init__(self, first: Callable[[], object] = lambda: None) -> None:
        self._first = first
        self.read: list[str] = []

    def text(self, prompt: str) -> bytes:
        self._first()
        self.read.append(prompt)
        return prompt.encode()


@pytest.fixture
def store() -> Store:
    return Store()


Asking = Callable[..., RemoteEncoding]


@pytest.fixture
def asking(desk: Desk, another: Callable[[], RedisLedger], store: Store) -> Asking:
    def make(**changes: Any) -> RemoteEncoding:
        values = {"limit_s": 20.0, "wait_s": 0.2, "wake": lambda model: None, "objects": store, **changes}
        return RemoteEncoding(ledger=another(), connection=desk.connection, region=REGION, **values)

    return make


Serving = Callable[..., Encoding]


@pytest.fixture
def serving(another: Callable[[], RedisLedger], store: Store) -> Iterator[Serving]:
    made: list[Encoding] = []

    def make(encoder: TextEncoder, **changes: Any) -> Encoding:
        pipeline: Any = lambda model: encoder  # noqa: E731
        values = {
            "region": REGION,
            "models": ["quick"],
            "stall_limit_s": 60.0,
            "objects": store,
            "pipeline": pipeline,
            **changes,
        }
        made.append(Encoding(ledger=another(), **values))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _lease(desk: Desk, **changes: object) -> Lease:
    desk.accept(**changes)
    return Lease(desk.claim())


def _in_background(remote: RemoteEncoding, lease: Lease) -> tuple[threading.Thread, list[object]]:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(remote.encoded(lease)))
    thread.start()
    return thread, found


def test_prompts_are_encoded_by_the_worker_that_takes_them_and_deleted_once_fetched(
    desk: Desk, asking: Asking, serving: Serving, store: Store
) -> None:
    lease, encoder = _lease(desk), TextEncoder()
    thread, found = _in_background(asking(), lease)
    eventually(lambda: desk.connection.zcard(WAITING))
    serving(encoder).serve()
    thread.join(20)
    assert found == [{"make it blue": b"make it blue"}]
    assert not store.objects
    prefix = encodings.prefix_of("alice", lease.claim.id, lease.claim.token)
    assert desk.connection.zscore(keys.EXPIRING, prefix), "what nobody fetches is deleted later"


def test_a_prompt_that_was_encoded_is_remembered(desk: Desk, asking: Asking, serving: Serving) -> None:
    remote, encoder = asking(), TextEncoder()
    for _ in range(2):
        thread, found = _in_background(remote, _lease(desk))
        eventually(lambda: found or desk.connection.zcard(WAITING))  # noqa: B023
        serving(encoder).serve()
        thread.join(20)
        assert found == [{"make it blue": b"make it blue"}]
    assert encoder.read == ["make it blue"]


def test_who_waited_longest_is_served_first_and_asking_again_changes_no_place(desk: Desk) -> None:
    claims = [_lease(desk).claim for _ in range(3)]
    for claim in (*claims, claims[0]):
        asked_ms = desk.now_ms()
        assert desk.run(encodings.ask(claim, REGION))
        eventually(lambda: desk.now_ms() > asked_ms)  # noqa: B023  (places are told apart by the millisecond)
    taken = [desk.run(encodings.take(REGION, ["quick"])) for _ in range(4)]
    assert [one and one.id for one in taken] == [*(claim.id for claim in claims), None]


def test_what_its_worker_no_longer_holds_is_passed_over(desk: Desk) -> None:
    cancelled, held = (_lease(desk).claim for _ in range(2))
    for claim in (cancelled, held):
        desk.run(encodings.ask(claim, REGION))
    desk.run(records.cancel(cancelled.id, "alice"))
    taken = desk.run(encodings.take(REGION, ["quick"]))
    assert taken is not None
    assert taken.id == held.id
    assert not desk.run(encodings.ask(cancelled, REGION)), "nor is it asked for again"


def test_a_worker_that_took_a_prompt_may_die_with_it(
    desk: Desk, asking: Asking, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_encoding, "ASK_AGAIN_S", 0.3)
    thread, found = _in_background(asking(), _lease(desk))
    eventually(lambda: desk.run(encodings.take(REGION, ["quick"])))
    eventually(lambda: desk.connection.zcard(WAITING))
    serving(TextEncoder()).serve()
    thread.join(20)
    assert found == [{"make it blue": b"make it blue"}]


def test_nobody_is_waited_for_longer_than_allowed(desk: Desk, asking: Asking) -> None:
    began = time.monotonic()
    assert asking(limit_s=0.5).encoded(_lease(desk)) is None
    assert 0.5 <= time.monotonic() - began < 5


def test_who_cannot_load_its_text_encoder_says_so_at_once(desk: Desk, asking: Asking, serving: Serving) -> None:
    def fail() -> None:
        raise errors.ModelUnavailableError("no weights")

    thread, found = _in_background(asking(limit_s=60), _lease(desk))
    eventually(lambda: desk.connection.zcard(WAITING))
    serving(TextEncoder(fail)).serve()
    thread.join(20)
    assert found == [None]


def test_what_one_could_not_encode_another_may(
    desk: Desk, asking: Asking, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(remote_encoding, "ASK_AGAIN_S", 0.3)
    thread, found = _in_background(asking(), _lease(desk))
    eventually(lambda: desk.connection.zcard(WAITING))
    serving(TextEncoder(fail)).serve()
    other = serving(TextEncoder())
    eventually(lambda: other.serve() or found)
    thread.join(10)
    assert found == [{"make it blue": b"make it blue"}]


def test_what_cannot_be_fetched_is_asked_for_again(
    desk: Desk, asking: Asking, serving: Serving, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_encoding, "ASK_AGAIN_S", 0.3)
    encoder, put = TextEncoder(), store.put
    monkeypatch.setattr(store, "put", lambda *args: put(*args) if len(encoder.read) > 1 else None)
    thread, found = _in_background(asking(), _lease(desk))
    one = serving(encoder)
    eventually(lambda: one.serve() or found)
    thread.join(10)
    assert found == [{"make it blue": b"make it blue"}]


def test_time_in_which_a_text_encoder_is_loaded_does_not_count(desk: Desk, asking: Asking) -> None:
    is_loading = threading.Event()
    is_loading.set()
    remote = asking(limit_s=0.5, wait_s=0.1, is_loading=lambda model: is_loading.is_set())
    thread, found = _in_background(remote, _lease(desk))
    thread.join(1.5)
    assert thread.is_alive()
    is_loading.clear()
    thread.join(20)
    assert found == [None]


def test_a_store_that_does_not_answer_for_a_moment_costs_that_moment(
    desk: Desk, asking: Asking, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_encoding, "ASK_AGAIN_S", 0.3)
    blpop, failures = desk.connection.blpop, iter([True, True])

    def stalled(*args: Any, **more: Any) -> Any:
        if next(failures, False):
            raise redis.TimeoutError
        return blpop(*args, **more)

    monkeypatch.setattr(desk.connection, "blpop", stalled)
    thread, found = _in_background(asking(), _lease(desk))
    one = serving(TextEncoder())
    eventually(lambda: one.serve() or found)
    thread.join(20)
    assert found == [{"make it blue": b"make it blue"}]


def test_what_nobody_waits_for_any_more_is_not_encoded(desk: Desk, asking: Asking, serving: Serving) -> None:
    assert asking(limit_s=0.3).encoded(_lease(desk)) is None
    encoder = TextEncoder()
    serving(encoder).serve()
    assert not encoder.read


def test_prompts_stay_in_their_region(desk: Desk, serving: Serving) -> None:
    desk.run(encodings.ask(_lease(desk).claim, REGION))
    elsewhere, here = TextEncoder(), TextEncoder()
    serving(elsewhere, region="eu-north1").serve()
    serving(here).serve()
    assert (elsewhere.read, here.read) == ([], ["make it blue"])


def test_a_text_encoder_that_runs_out_of_memory_is_tried_at_once_with_less(desk: Desk, serving: Serving) -> None:
    relieved: list[str] = []

    def tight() -> None:
        if not relieved:
            raise errors.OutOfMemoryError("too much")

    def relieve(model: str) -> bool:
        assert sys.exc_info()[1] is None, "what is handled holds the frames that it passed through, and what is in them"
        relieved.append(model)
        return True

    encoder = TextEncoder(tight)
    desk.run(encodings.ask(_lease(desk).claim, REGION))
    serving(encoder, relieve=relieve).serve()
    assert (encoder.read, relieved) == (["make it blue"], ["quick"])


def test_a_cancelled_edit_stops_asking(desk: Desk, asking: Asking) -> None:
    lease = _lease(desk)
    lease.stop()
    with pytest.raises(errors.CancelledError):
        asking().encoded(lease)


def test_a_prompt_that_could_not_be_stored_is_asked_for_again(
    desk: Desk, asking: Asking, serving: Serving, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_encoding, "ASK_AGAIN_S", 0.3)
    encoder, store.is_down = TextEncoder(), True
    one = serving(encoder)
    thread, found = _in_background(asking(), _lease(desk))
    eventually(lambda: one.serve() or encoder.read)
    store.is_down = False
    eventually(lambda: one.serve() or found)
    thread.join(10)
    assert found == [{"make it blue": b"make it blue"}]


def test_a_fault_of_the_gpu_is_answered_and_ends_the_process(desk: Desk, asking: Asking, serving: Serving) -> None:
    def fail() -> None:
        raise errors.GpuFaultError("an illegal memory access")

    ended: list[int] = []
    thread, found = _in_background(asking(limit_s=1), _lease(desk))
    eventually(lambda: desk.connection.zcard(WAITING))
    serving(TextEncoder(fail), end_process=ended.append).serve()
    thread.join(10)
    assert (found, ended) == ([None], [EXIT_GPU_FAULT])


def test_a_text_encoder_that_hangs_ends_its_process(desk: Desk, serving: Serving) -> None:
    going_on, ended = threading.Event(), list[int]()
    one = serving(TextEncoder(lambda: going_on.wait(20)), end_process=ended.append, stall_limit_s=0.05)
    one.check_stall()
    assert not ended
    desk.run(encodings.ask(_lease(desk).claim, REGION))
    thread = threading.Thread(target=one.serve)
    thread.start()
    eventually(lambda: one.check_stall() or ended)
    going_on.set()
    thread.join(10)
    assert set(ended) == {EXIT_HANGING}


def test_a_load_that_hangs_ends_its_process(serving: Serving) -> None:
    ended, loading_s = list[int](), [9.0]
    one = serving(TextEncoder(), end_process=ended.append, load_limit_s=10, loading_s=lambda: loading_s[0])
    one.check_stall()
    assert not ended
    loading_s[0] = 11
    one.check_stall()
    assert ended == [EXIT_HANGING]


def test_models_are_served_in_turn(desk: Desk, serving: Serving) -> None:
    encoder, models = TextEncoder(), ["quick", "slow"]
    for number in range(2):
        for model in models:
            submission = {"model": model, "prompt": f"{model} {number}"}
            desk.run(encodings.ask(_lease(desk, edit=an_edit(**submission)).claim, REGION))
    serving(encoder, models=models).serve()
    assert encoder.read == ["quick 0", "slow 0", "quick 1", "slow 1"]
