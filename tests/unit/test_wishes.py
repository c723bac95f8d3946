"""Models that are wanted are loaded, kept and let go without getting in the way of work or of each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from storage.contracts import errors
from storage.ledger import call, claims, presence
from tests.unit.test_residency import Shelf
from workers.residency import Residency
from workers.wishes import Wishes


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(monkeypatch)


@dataclass
class Ledger:
    """A ledger that has only these, for processes that can do something about them."""

    wishes: dict[str, presence.Wish]
    until_ms: int = 1
    asked: list[Sequence[Any]] = field(default_factory=list)

    def run(self, call: call.Call[Any]) -> Any:
        self.asked.append(call.arguments[3:])
        told = {model: how for model, how in self.wishes.items() if how == "never" or model in call.arguments[3:]}
        return {model: presence.Wanted(how, self.until_ms) for model, how in told.items()}


def _wishes(residency: Residency, wishes: Ledger, is_busy: Callable[[], bool] = lambda: False) -> Wishes:
    return Wishes(
        ledger=wishes, claimant=claims.Claimant(worker="w"), models=("a", "b", "c"), residency=residency, is_busy=is_busy,
        on_pipeline=lambda action: action() and None,
    )  # fmt: skip


def test_two_kept_models_that_do_not_fit_together_do_not_take_turns(shelf: Shelf) -> None:
    residency = shelf.residency(memory_gb=15)
    worker = _wishes(residency, Ledger({"a": "always", "b": "always"}))
    for _ in range(5):
        worker.look()
    assert len(shelf.log) <= 3, shelf.log
    assert residency.resident()


def test_what_is_kept_gives_way_to_work_and_comes_back_when_there_is_none(shelf: Shelf) -> None:
    residency, busy = shelf.residency(memory_gb=15), [False]
    worker = _wishes(residency, Ledger({"a": "always"}), lambda: busy[0])
    worker.look()
    residency.pipeline("b")
    busy[0] = True
    worker.look()
    assert residency.resident() == ("b",)
    busy[0] = False
    worker.look()
    assert residency.resident() == ("a",)


def test_letting_go_waits_for_idleness_and_happens_once(shelf: Shelf) -> None:
    residency, busy = shelf.residency(), [True]
    wishes = Ledger({"a": "never"})
    worker = _wishes(residency, wishes, lambda: busy[0])
    residency.pipeline("a")
    worker.look()
    assert residency.resident() == ("a",)
    busy[0] = False
    worker.look()
    assert residency.resident() == ()
    residency.pipeline("a")
    worker.look()
    assert residency.resident() == ("a",), "work asked for it anew"
    wishes.until_ms = 2
    worker.look()
    assert residency.resident() == (), "and somebody said again that it is to go"


def test_work_that_is_claimed_as_a_model_is_to_go_keeps_it(shelf: Shelf) -> None:
    residency, busy = shelf.residency(), [False]
    worker = _wishes(residency, Ledger({"a": "never"}), lambda: busy[0])
    residency.pipeline("a")

    def claimed_meanwhile(action: Callable[[], object]) -> None:
        busy[0] = True
        action()

    at_once, worker._on_pipeline = worker._on_pipeline, claimed_meanwhile
    worker.look()
    assert residency.resident() == ("a",)
    busy[0], worker._on_pipeline = False, at_once
    worker.look()
    assert residency.resident() == ()


def test_a_failure_is_counted_and_tried_again_when_somebody_asks(shelf: Shelf) -> None:
    residency = shelf.residency()
    worker = _wishes(residency, Ledger({"a": "once"}))
    shelf.failing = [errors.ModelUnavailableError("no weights")]
    worker.look()
    assert residency.state("a") == {"state": "failed", "reason": "no weights", "failures": 1}
    worker.look()
    assert residency.state("a")["state"] == "warm"


def test_what_cannot_be_loaded_is_told_by_its_state_but_a_fault_of_the_gpu_to_what_ends_the_process(
    shelf: Shelf,
) -> None:
    residency = shelf.residency()
    shelf.failing = [errors.ModelUnavailableError("damaged"), errors.GpuFaultError("illegal memory access")]
    worker = _wishes(residency, Ledger({"a": "once"}))
    worker.look()
    assert residency.state("a")["reason"] == "damaged"
    with pytest.raises(errors.GpuFaultError):
        worker.look()
