"""A model is not taken off the device while an earlier claim needs it."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import pytest

from storage.contracts import errors
from tests.conftest import eventually
from tests.unit.test_conveyor import Desk, Lease, Phases
from workers.conveyor import Conveyor
from workers.order import Order


@dataclass
class Device:
    """Room for one model."""

    loaded: str = ""
    loads: list[str] = field(default_factory=list)

    def would_evict(self, model: str) -> frozenset[str]:
        return frozenset({self.loaded} - {model, ""})

    def load(self, model: str) -> None:
        if model != self.loaded:
            self.loaded = model
            self.loads.append(model)


def _conveyor(device: Device, desk: Desk, models: str) -> Conveyor:
    """A desk whose generations want these models, one letter each."""
    phases, claim = Phases(desk), desk.claim

    def claimed(*, has_ticket: bool = True, slow_tenants: Collection[str] = ()) -> Lease | None:
        lease = claim(slow_tenants=slow_tenants)
        if lease is not None:
            lease.model = models[lease.number]
        return lease

    def warm(lease: Lease) -> None:
        device.load(lease.model)

    edit = desk.edit

    def edited(prepared: object, on_step: Callable[[int], None]) -> object:
        device.load(prepared.lease.model)  # type: ignore[attr-defined]
        return edit(prepared, on_step)  # type: ignore[arg-type]

    phases.claim, phases.warm, phases.edit = claimed, warm, edited  # type: ignore[assignment]
    return Conveyor(phases, desk, look_ahead_s=10, would_evict=device.would_evict)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.conveyor.PATIENCE_S", 0.05)


def test_a_slow_input_does_not_cost_two_more_loads() -> None:
    """A's input is late; B is claimed beside it and wants another model. Before: A, B, A, and for the next B again."""
    arrived, device = threading.Event(), Device()

    def prepare(lease: Lease) -> None:
        if lease.number == 0:
            arrived.wait(10)

    desk = Desk(waiting=2, steps=1, step_s=0, prepare=prepare)
    desk.finish_gate.set()
    conveyor = _conveyor(device, desk, "ab")
    serving = threading.Thread(target=conveyor.serve)
    serving.start()
    eventually(lambda: ("prepared", 1) in desk.log)
    assert desk.dropped == [], "B waits for A"
    arrived.set()
    serving.join(10)
    conveyor.close()
    assert device.loads == ["a", "b"]
    assert [number for what, number in desk.log if what == "edit"] == [0, 1]


def test_what_waited_for_one_that_fails_goes_on() -> None:
    arrived, device = threading.Event(), Device()

    def prepare(lease: Lease) -> None:
        if lease.number == 0:
            arrived.wait(10)
            raise errors.InputUnreachableError("gone")

    desk = Desk(waiting=2, steps=1, step_s=0, prepare=prepare)
    desk.finish_gate.set()
    conveyor = _conveyor(device, desk, "ab")
    serving = threading.Thread(target=conveyor.serve)
    serving.start()
    eventually(lambda: ("prepared", 1) in desk.log)
    arrived.set()
    serving.join(10)
    conveyor.close()
    assert sorted(desk.dropped) == [0, 1]
    assert device.loads == ["a", "b"]


def test_what_fits_beside_the_others_does_not_wait() -> None:
    order = Order(lambda model: frozenset())
    order.hold("A", "a")
    order.hold("B", "b")
    assert order.admits("B", lambda: None)


def test_only_earlier_claims_are_waited_for() -> None:
    order = Order(lambda model: frozenset({"a", "b"} - {model}))
    order.hold("A", "a")
    order.hold("B", "b")
    assert order.admits("A", lambda: None), "though B needs a model that goes"
    assert not order.admits("B", lambda: "B asks again")
    assert [ask_again() for ask_again in order.settle("A")] == ["B asks again"]
    assert order.admits("B", lambda: None)


def test_claims_of_one_model_do_not_wait_for_each_other() -> None:
    order = Order(lambda model: frozenset())
    order.hold("A", "a")
    order.hold("A2", "a")
    assert order.admits("A2", lambda: None)


def _late(arrived: threading.Event) -> Callable[[Lease], None]:
    """The first one's input is late."""

    def prepare(lease: Lease) -> None:
        if lease.number == 0:
            arrived.wait(10)

    return prepare


def _close(conveyor: Conveyor) -> None:
    closing = threading.Thread(target=conveyor.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive(), "somebody is waited for in vain"


def test_while_one_is_postponed_what_can_run_is_claimed_and_runs() -> None:
    arrived, device = threading.Event(), Device()
    desk = Desk(waiting=3, steps=1, step_s=0, prepare=_late(arrived))
    desk.finish_gate.set()
    conveyor = _conveyor(device, desk, "aba")
    serving = threading.Thread(target=conveyor.serve)
    serving.start()
    try:
        eventually(lambda: ("edited", 2) in desk.log, within_s=8)
    finally:
        arrived.set()
        serving.join(10)
    _close(conveyor)
    assert device.loads == ["a", "b"]
    assert [number for what, number in desk.log if what == "edit"] == [2, 0, 1]


def test_a_load_ahead_that_fails_in_an_odd_way_makes_nobody_be_forgotten() -> None:
    arrived, device = threading.Event(), Device()
    desk = Desk(waiting=3, steps=1, step_s=0, prepare=_late(arrived))
    desk.finish_gate.set()
    conveyor = _conveyor(device, desk, "abb")
    warm = conveyor._phases.running.warm

    def failing(lease: Lease) -> None:
        if lease.number == 1:
            raise RuntimeError("a bug")
        warm(lease)  # type: ignore[arg-type]

    conveyor._phases.running.warm = failing  # type: ignore[method-assign, assignment]
    serving = threading.Thread(target=conveyor.serve)
    serving.start()
    eventually(lambda: ("prepared", 2) in desk.log)
    arrived.set()
    serving.join(10)
    _close(conveyor)
    assert sorted(desk.dropped) == [0, 1, 2]


def test_what_nobody_knows_the_room_of_is_edited_nevertheless() -> None:
    def would_evict(model: str) -> frozenset[str]:
        raise errors.ModelNotFoundError(model)

    desk = Desk(waiting=3, steps=1, step_s=0)
    desk.finish_gate.set()
    conveyor = Conveyor(Phases(desk), desk, look_ahead_s=10, would_evict=would_evict)  # type: ignore[arg-type]
    serving = threading.Thread(target=conveyor.serve)
    serving.start()
    eventually(lambda: len(desk.dropped) == 3, within_s=8)
    serving.join(10)
    _close(conveyor)
