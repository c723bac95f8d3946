"""One sweep that fails stops no other."""

import threading
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from storage.contracts import errors
from storage.ledger import call
from workers.housekeeping import Housekeeping
from workers.metrics import HousekeepingMetrics


class Broken:
    """A ledger whose fleet cannot be read by this version."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.enough = threading.Event()

    def run(self, call: call.Call[Any]) -> Any:
        self.ran.append(call.script)
        if self.ran.count("backlog") == 3:
            self.enough.set()
        if call.script == "present":
            raise KeyError("region")
        return {} if call.script in ("recover", "wake") else ()


def _adopt() -> None:
    pass


def _move() -> None:
    pass


def test_recovery_goes_on_whatever_another_sweep_meets() -> None:
    ledger, stopping, told = Broken(), threading.Event(), CollectorRegistry()
    archiver = SimpleNamespace(adopt=_adopt, move=_move)
    housekeeping = Housekeeping(
        ledger=ledger, objects=None, archiver=archiver, send_ticket=lambda queue: None, known_queues=(), lease_s=1, sweep_s=0.01,  # type: ignore[arg-type]
        max_attempts=1, max_losses=1, counted=HousekeepingMetrics(told),
    )  # fmt: skip
    sweeping = threading.Thread(target=housekeeping.run, args=[stopping])
    sweeping.start()
    assert ledger.enough.wait(10), ledger.ran
    stopping.set()
    sweeping.join(10)
    assert ledger.ran.count("recover") >= 3
    known = {one.labels["sweep"] for family in told.collect() for one in family.samples if "last_success" in one.name}
    assert {"recover", "reroute", "delete_expired", "erase"} <= known, "also one that never went well can be missed"


def test_a_worker_that_names_no_region_is_in_the_usual_one() -> None:
    from storage import fleet

    old = {"role": "gpu", "gpu_type": "cpu", "models": {"quick": {"state": "warm"}}}
    found = fleet.gpu_workers({"old": old, "h": {"role": "housekeeping"}, "odd": {"role": "gpu"}})
    assert list(found) == ["old"]
    assert found["old"]["region"] == "local"


class Undeletable:
    """A ledger in which prefixes are due, and objects that cannot be deleted below some of them."""

    def __init__(self, prefixes: list[str]) -> None:
        self.due = list(prefixes)
        self.forgotten: dict[str, Any] = {}

    def run(self, asked: call.Call[Any]) -> Any:
        if asked.script == "expired":
            return asked.decode([self.due.pop(0), "121000"] if self.due else [])
        if asked.script == "forget":
            prefix, _, again = asked.arguments
            self.forgotten[str(prefix)] = again
        return 1

    def entries(self, prefix: str) -> list[Any]:
        if prefix == "inputs/unreachable/":
            raise errors.ObjectsUnavailableError("The object store does not answer")
        return []

    def lapse(self, key: str) -> None:
        raise ValueError("a list of another release")


def test_what_cannot_be_deleted_holds_up_nothing_else() -> None:
    both: Any = Undeletable(["expiry/odd.json", "inputs/unreachable/", "inputs/gone/"])
    Housekeeping(
        ledger=both, objects=both, archiver=both, send_ticket=lambda queue: None, known_queues=(), lease_s=1, sweep_s=1,
        max_attempts=1, max_losses=1, counted=HousekeepingMetrics(CollectorRegistry()),
    ).delete_expired()  # fmt: skip
    # Taken a second after 1970, held for two minutes, and tried again after ten seconds.
    assert both.forgotten == {"expiry/odd.json": 11_000, "inputs/unreachable/": 11_000, "inputs/gone/": ""}
