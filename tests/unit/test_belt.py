"""Inputs that are slow to arrive leave their places to others, and no tenant has many of them."""

import threading
from collections.abc import Callable

import pytest

from tests.conftest import eventually
from workers.belt import Belt


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def belt(clock: Clock) -> Belt:
    return Belt(2, slow_after_s=0.1, aside=3, aside_of_tenant=2, clock=clock)


def _arriving(belt: Belt, *holders: str, tenant: str = "mallory") -> None:
    for holder in holders:
        belt.take()
        belt.begin(holder, tenant)


class Taking:
    """Takes a place, on a thread of its own."""

    def __init__(self, belt: Belt) -> None:
        self._thread = threading.Thread(target=belt.take, daemon=True)
        self._thread.start()

    def has_one(self) -> bool:
        self._thread.join(0.2)
        return not self._thread.is_alive()


def test_a_full_belt_is_waited_for(belt: Belt) -> None:
    _arriving(belt, "a", "b")
    taking = Taking(belt)
    assert not taking.has_one(), "their inputs are not slow yet"
    belt.leave("a")
    assert taking.has_one()


def test_what_is_slow_steps_aside_and_waits_for_a_place_when_it_has_arrived(belt: Belt, clock: Clock) -> None:
    _arriving(belt, "a", "b")
    clock.now = 1
    _arriving(belt, "c", "d", tenant="bob")
    arrived = threading.Event()
    threading.Thread(target=lambda: (belt.arrived("a"), arrived.set()), daemon=True).start()
    assert not arrived.wait(0.2), "both places are others'"
    belt.leave("c")
    assert arrived.wait(5)
    taking = Taking(belt)
    assert not taking.has_one(), "a has its place again, d has the other"
    belt.leave("a")
    assert taking.has_one()


def test_an_input_that_never_came_leaves_no_place_behind(belt: Belt, clock: Clock) -> None:
    _arriving(belt, "a", "b")
    clock.now = 1
    _arriving(belt, "c", "d", tenant="bob")
    belt.leave("a")
    belt.leave("b")
    assert not Taking(belt).has_one(), "c and d are on the belt"


def test_what_has_arrived_is_slow_no_more(belt: Belt, clock: Clock) -> None:
    _arriving(belt, "a", "b")
    belt.arrived("a")
    belt.arrived("b")
    clock.now = 1
    assert not Taking(belt).has_one()
    assert not belt.slow()


def test_a_tenant_has_few_slow_ones_beside_others(belt: Belt, clock: Clock) -> None:
    _arriving(belt, "a", "b")
    assert not belt.slow()
    clock.now = 1
    assert belt.slow_tenants() == {"mallory"}, "on the belt"
    _arriving(belt, "c", tenant="bob")
    assert belt.slow_tenants() == {"mallory"}, "on it and beside it"
    clock.now = 2
    assert belt.slow() == {"mallory": 2, "bob": 1}
    belt.leave("a")
    assert belt.slow() == {"mallory": 1, "bob": 1}
    assert not belt.slow_tenants()


@pytest.mark.parametrize("end", [Belt.arrived, Belt.leave], ids=["arrived", "never came"])
@pytest.mark.parametrize("is_aside", [False, True], ids=["on the belt", "aside"])
def test_after_a_slow_input_the_next_is_expected_to_be_slow(
    belt: Belt, clock: Clock, end: Callable[[Belt, str], None], is_aside: bool
) -> None:
    _arriving(belt, "quick", tenant="bob")
    belt.arrived("quick")
    _arriving(belt, "slow")
    assert not belt.expects_slow("mallory")
    clock.now = 1
    assert belt.expects_slow("mallory")
    if is_aside:
        _arriving(belt, "another", tenant="carol")
        belt.leave("another")
    end(belt, "slow")
    clock.now = 60
    assert belt.expects_slow("mallory")
    assert not belt.expects_slow("bob")
    clock.now = 62
    assert not belt.expects_slow("mallory")


def test_only_so_many_stand_aside(belt: Belt, clock: Clock) -> None:
    for n in range(5):
        _arriving(belt, str(n), tenant=str(n))
        clock.now += 1
    taking = Taking(belt)
    assert not taking.has_one()
    belt.leave("0")
    eventually(taking.has_one, within_s=5)
