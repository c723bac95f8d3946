"""The conveyor overlaps phases, without claiming what another GPU could run now."""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import pytest
from opentelemetry.trace import INVALID_SPAN

from storage.contracts import errors
from tests.conftest import eventually
from workers.attempts import EXIT_GPU_FAULT
from workers.belt import SLOW_OF_TENANT
from workers.conveyor import IDLE_PATIENCE_S, IN_FLIGHT, Conveyor


@dataclass
class Job:
    steps: int


@dataclass
class Prepared:
    lease: "Lease"
    job: Job


@dataclass
class Edited:
    prepared: Prepared


@dataclass
class Stored:
    lease: "Lease"
    is_to_be_delivered: bool


@dataclass(eq=False)
class Lease:
    number: int
    steps: int = 4
    model: str = "m"
    waited_ms: int = 0
    load_ms: int = 0
    tenant: str = "plain"

    def __post_init__(self) -> None:
        self.claim = self.edit = self
        self.span = INVALID_SPAN
        self.id = str(self.number)
        self.is_fetched = self.tenant != "plain"


@dataclass
class Desk:
    """Stands in for the use case: notes who does what when, and lets a test hold each step of the pipeline."""

    waiting: int
    steps: int = 4
    step_s: float = 0.05
    prepare: Callable[[Lease], None] = lambda _: None
    finish_gate: threading.Event = field(default_factory=threading.Event)
    bucket_gate: threading.Event = field(default_factory=threading.Event)
    is_to_be_delivered: bool = False
    fetched: int = 0
    log: list[tuple[str, int]] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)

    # what the conveyor calls of the use case
    def claim(self, *, has_ticket: bool = True, slow_tenants: Collection[str] = ()) -> Lease | None:
        number = sum(what == "claim" for what, _ in self.log)
        fetched = self.fetched and "mallory" not in slow_tenants
        if not self.waiting and not fetched:
            return None
        # Turn by turn, as tenants are claimed.
        is_fetched = bool(fetched) and (number % 2 == 1 or not self.waiting)
        self.waiting -= not is_fetched
        self.fetched -= is_fetched
        self.log.append(("claim", number))
        return Lease(number, self.steps, tenant="mallory" if is_fetched else "plain")

    def edit(self, prepared: Prepared, on_step: Callable[[int], None]) -> Edited:
        self.log.append(("edit", prepared.lease.number))
        for step in range(1, self.steps + 1):
            time.sleep(self.step_s)
            on_step(step)
        self.log.append(("edited", prepared.lease.number))
        return Edited(prepared)

    def store(self, edited: Edited) -> Stored:
        self.finish_gate.wait(10)
        return Stored(edited.prepared.lease, self.is_to_be_delivered)

    def publish(self, stored: Stored) -> bool:
        if stored.is_to_be_delivered:
            self.bucket_gate.wait(10)
        self.log.append(("finish", stored.lease.number))
        return True

    def give_up(self, lease: Lease, error: errors.DarkroomError) -> None:
        self.given_up.append(error.code)

    # what it calls of the keeper
    def hand_back(self) -> None:
        self.log.append(("hand back", 0))

    def drop(self, lease: Lease) -> None:
        self.dropped.append(lease.number)

    def _prepare(self, lease: Lease) -> Prepared:
        self.prepare(lease)
        self.log.append(("prepared", lease.number))
        return Prepared(lease, Job(self.steps))

    def place(self, what: str, number: int) -> int:
        return self.log.index((what, number))


class Phases:
    """The desk under the names the conveyor knows: it is every phase."""

    def __init__(self, desk: Desk) -> None:
        self.claiming = self.preparing = self.running = self.finishing = self.retrying = self
        self.warm = lambda lease: None
        self.finish_warming = lambda lease: None
        self.claim, self.prepare, self.edit = desk.claim, desk._prepare, desk.edit
        self.store, self.publish, self.give_up = desk.store, desk.publish, desk.give_up


@pytest.fixture
def belt() -> Iterator[Callable[[Desk, float], Conveyor]]:
    opened: list[tuple[Conveyor, Desk]] = []

    def make(desk: Desk, look_ahead_s: float) -> Conveyor:
        conveyor = Conveyor(Phases(desk), desk, look_ahead_s=look_ahead_s)  # type: ignore[arg-type]
        opened.append((conveyor, desk))
        return conveyor

    yield make
    for conveyor, desk in opened:
        desk.finish_gate.set()
        desk.bucket_gate.set()
        conveyor.close()


Belt = Callable[[Desk, float], Conveyor]


def test_the_next_is_prepared_while_the_pipeline_runs_and_results_leave_meanwhile(belt: Belt) -> None:
    desk = Desk(waiting=3, step_s=0.2)
    desk.finish_gate.set()
    belt(desk, 10).serve()
    eventually(lambda: len(desk.dropped) == 3)
    assert desk.place("prepared", 1) < desk.place("edited", 0)
    assert desk.place("prepared", 2) < desk.place("edited", 1)
    assert [number for what, number in desk.log if what == "edit"] == [0, 1, 2]


def test_nothing_is_claimed_before_the_running_edit_is_nearly_done(belt: Belt) -> None:
    desk = Desk(waiting=2, steps=10)
    desk.finish_gate.set()
    belt(desk, 0).serve()
    eventually(lambda: len(desk.dropped) == 2)
    assert desk.place("claim", 1) > desk.place("edited", 0) - 2


def test_a_tenant_whose_pictures_do_not_come_holds_up_nobody_else(belt: Belt) -> None:
    given_up = threading.Event()

    def prepare(lease: Lease) -> None:
        if lease.tenant == "mallory":
            given_up.wait(20)

    desk = Desk(waiting=30, fetched=30, step_s=0.01, prepare=prepare)
    desk.finish_gate.set()
    conveyor = belt(desk, 10)
    looking = threading.Thread(target=conveyor.look_by_itself, args=[600])
    looking.start()
    conveyor.serve()
    eventually(lambda: sum(what == "finish" for what, _ in desk.log) == 30)
    assert SLOW_OF_TENANT <= 30 - desk.fetched <= IN_FLIGHT, "so many of mallory's are waited for"
    given_up.set()
    # Without a ticket: those were spent.
    eventually(lambda: len(desk.dropped) == 60)
    conveyor.drain()
    looking.join(5)
    assert not looking.is_alive()


def test_an_idle_pipeline_does_not_wait_for_the_next_picture_of_a_tenant_whose_pictures_are_slow(belt: Belt) -> None:
    arrived, began = threading.Event(), time.monotonic()
    desk = Desk(waiting=0, fetched=SLOW_OF_TENANT, steps=1, step_s=0, prepare=lambda lease: arrived.wait(20) and None)
    desk.finish_gate.set()
    belt(desk, 10).serve()
    took_s = time.monotonic() - began
    arrived.set()
    assert desk.fetched == 0
    assert IDLE_PATIENCE_S < took_s < (SLOW_OF_TENANT - 0.5) * IDLE_PATIENCE_S, "the first one's time alone"


def test_results_that_cannot_leave_stop_new_claims(belt: Belt) -> None:
    desk = Desk(waiting=20, steps=1, step_s=0)
    conveyor = belt(desk, 10)
    serving = threading.Thread(target=conveyor.serve)
    serving.start()
    eventually(lambda: sum(what == "edited" for what, _ in desk.log) == IN_FLIGHT)
    assert sum(what == "claim" for what, _ in desk.log) == IN_FLIGHT
    desk.finish_gate.set()
    serving.join(10)
    eventually(lambda: len(desk.dropped) == 20)


def test_a_slow_bucket_holds_up_nothing_but_its_own_results(belt: Belt) -> None:
    desk = Desk(waiting=3 * IN_FLIGHT, steps=1, step_s=0, is_to_be_delivered=True)
    desk.finish_gate.set()
    conveyor = belt(desk, 10)
    conveyor.serve()
    eventually(lambda: sum(what == "edited" for what, _ in desk.log) == 3 * IN_FLIGHT)
    assert desk.dropped == [], "they are held until they are delivered"
    desk.bucket_gate.set()
    conveyor.close()
    assert len(desk.dropped) == 3 * IN_FLIGHT


def test_what_cannot_be_published_after_its_delivery_leaves_room_as_before(belt: Belt) -> None:
    desk = Desk(waiting=3 * IN_FLIGHT, steps=1, step_s=0, is_to_be_delivered=True)
    desk.finish_gate.set()
    phases = Phases(desk)

    def publish(stored: Stored) -> bool:
        raise errors.ObjectsUnavailableError("gone")

    phases.publish = publish
    conveyor = Conveyor(phases, desk, look_ahead_s=10)  # type: ignore[arg-type]
    conveyor.serve()
    conveyor.close()
    assert len(desk.dropped) == len(desk.given_up) == 3 * IN_FLIGHT


def test_what_fails_leaves_the_belt_and_the_rest_goes_on(belt: Belt) -> None:
    def prepare(lease: Lease) -> None:
        if lease.number == 0:
            raise errors.InputUnreachableError("no")
        if lease.number == 1:
            raise RuntimeError("a bug")

    desk = Desk(waiting=10, steps=1, step_s=0, prepare=prepare)
    desk.finish_gate.set()
    belt(desk, 10).serve()
    eventually(lambda: len(desk.dropped) == 10)
    assert sorted(desk.given_up) == ["input_unreachable", "internal"]
    assert sum(what == "finish" for what, _ in desk.log) == 8


def test_draining_finishes_what_is_on_the_belt_and_claims_no_more(belt: Belt) -> None:
    desk = Desk(waiting=10, step_s=0.2)
    desk.finish_gate.set()
    conveyor = belt(desk, 0)
    serving = threading.Thread(target=conveyor.serve)
    serving.start()
    eventually(lambda: ("edit", 0) in desk.log)
    conveyor.drain()
    serving.join(10)
    conveyor.close()
    assert [number for what, number in desk.log if what == "finish"] == [0]
    assert desk.waiting == 9


def test_an_input_that_does_not_arrive_keeps_nobody_else_waiting(belt: Belt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.conveyor.PATIENCE_S", 0.05)
    arrived = threading.Event()

    def prepare(lease: Lease) -> None:
        if lease.number == 0:
            arrived.wait(10)

    desk = Desk(waiting=3, steps=1, step_s=0, prepare=prepare)
    desk.finish_gate.set()
    belt(desk, 10).serve()
    eventually(lambda: sorted(desk.dropped) == [1, 2])
    arrived.set()
    eventually(lambda: sorted(desk.dropped) == [0, 1, 2])


def test_a_gpu_that_failed_ends_the_process_and_what_it_held_goes_back() -> None:
    desk, ended = Desk(waiting=1), threading.Event()

    def edit(prepared: Prepared, on_step: Callable[[int], None]) -> Edited:
        raise errors.GpuFaultError("illegal memory access")

    phases = Phases(desk)
    phases.edit = edit
    conveyor = Conveyor(phases, desk, look_ahead_s=10, end_process=lambda _: ended.set())  # type: ignore[arg-type]
    conveyor.serve()
    assert ended.wait(5)
    conveyor.close()
    assert desk.given_up == ["gpu_fault"]
    assert ("hand back", 0) in desk.log


def test_a_gpu_that_failed_ends_the_process_whatever_the_store_says_to_what_is_handed_back() -> None:
    desk, ended = Desk(waiting=1), threading.Event()

    def edit(prepared: Prepared, on_step: Callable[[int], None]) -> Edited:
        raise errors.GpuFaultError("illegal memory access")

    def hand_back() -> None:
        raise ValueError("an odd reply")

    phases = Phases(desk)
    phases.edit, desk.hand_back = edit, hand_back  # type: ignore[method-assign]
    conveyor = Conveyor(phases, desk, look_ahead_s=10, end_process=lambda _: ended.set())  # type: ignore[arg-type]
    serving = threading.Thread(target=conveyor.serve, daemon=True)
    serving.start()
    assert ended.wait(5)
    conveyor.close()


def test_a_gpu_that_fails_while_a_model_is_loaded_ahead_is_blamed_on_who_asked_for_it() -> None:
    desk, ended = Desk(waiting=1, steps=1, step_s=0), threading.Event()
    desk.finish_gate.set()

    def warm(lease: Lease) -> None:
        raise errors.GpuFaultError("illegal memory access")

    phases = Phases(desk)
    phases.warm = warm  # type: ignore[assignment]
    conveyor = Conveyor(phases, desk, look_ahead_s=10, end_process=lambda _: ended.set())  # type: ignore[arg-type]
    conveyor.serve()
    assert ended.wait(5)
    conveyor.close()
    assert desk.given_up == ["gpu_fault"]


def test_a_gpu_that_fails_without_a_claim_ends_the_process_and_is_blamed_on_nobody() -> None:
    desk, ended = Desk(waiting=0), []

    def load() -> None:
        raise errors.GpuFaultError("illegal memory access")

    conveyor = Conveyor(Phases(desk), desk, look_ahead_s=10, end_process=ended.append)  # type: ignore[arg-type]
    with pytest.raises(errors.GpuFaultError):
        conveyor.call_on_pipeline_thread(load)
    conveyor.close()
    assert ended == [EXIT_GPU_FAULT]
    assert desk.given_up == []
    assert ("hand back", 0) in desk.log


def test_whatever_goes_wrong_in_giving_up_the_generation_is_let_go_of(belt: Belt) -> None:
    def prepare(lease: Lease) -> None:
        raise errors.InputUnreachableError("no")

    def give_up(lease: Lease, error: errors.DarkroomError) -> None:
        raise errors.StoreFullError("an odd reply")

    desk = Desk(waiting=3 * IN_FLIGHT, prepare=prepare)
    phases = Phases(desk)
    phases.give_up = give_up
    conveyor = Conveyor(phases, desk, look_ahead_s=10)  # type: ignore[arg-type]
    conveyor.serve()
    conveyor.close()
    assert len(desk.dropped) == 3 * IN_FLIGHT, "no slot is lost, no lease renewed"


def test_compiling_after_a_first_edit_does_not_keep_its_picture(belt: Belt) -> None:
    desk, compiled = Desk(waiting=2, steps=1, step_s=0), threading.Event()
    desk.finish_gate.set()
    phases = Phases(desk)
    phases.finish_warming = lambda lease: compiled.wait(10)
    conveyor = Conveyor(phases, desk, look_ahead_s=10)  # type: ignore[arg-type]
    serving = threading.Thread(target=conveyor.serve)
    serving.start()
    eventually(lambda: ("finish", 0) in desk.log)
    assert ("edit", 1) not in desk.log, "the next one waits for it"
    compiled.set()
    serving.join(10)
    conveyor.close()
    assert sorted(desk.dropped) == [0, 1]


def test_what_goes_wrong_in_compiling_after_an_edit_costs_no_edit(belt: Belt) -> None:
    desk = Desk(waiting=2, steps=1, step_s=0)
    desk.finish_gate.set()
    phases = Phases(desk)

    def odd(lease: Lease) -> None:
        raise TypeError("odd")

    phases.finish_warming = odd
    conveyor = Conveyor(phases, desk, look_ahead_s=10)  # type: ignore[arg-type]
    conveyor.serve()
    conveyor.close()
    assert [number for what, number in desk.log if what == "finish"] == [0, 1]


def test_a_worker_looks_for_work_even_when_no_ticket_comes(belt: Belt) -> None:
    desk = Desk(waiting=2, steps=1, step_s=0)
    desk.finish_gate.set()
    conveyor = belt(desk, 10)
    looking = threading.Thread(target=conveyor.look_by_itself, args=[0.01])
    looking.start()
    eventually(lambda: sorted(desk.dropped) == [0, 1])
    conveyor.drain()
    looking.join(5)
    assert not looking.is_alive()
