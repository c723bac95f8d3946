"""One sweep that fails stops no other."""

import threading
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

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


def test_recovery_goes_on_whatever_another_sweep_meets() -> None:
    ledger, stopping = Broken(), threading.Event()
    archiver = SimpleNamespace(adopt=lambda: None, move=lambda: None)
    housekeeping = Housekeeping(
        ledger=ledger, objects=None, archiver=archiver, send_ticket=lambda queue: None, known_queues=(), lease_s=1, sweep_s=0.01,  # type: ignore[arg-type]
        max_attempts=1, max_losses=1, counted=HousekeepingMetrics(CollectorRegistry()),
    )  # fmt: skip
    sweeping = threading.Thread(target=housekeeping.run, args=[stopping])
    sweeping.start()
    assert ledger.enough.wait(10), ledger.ran
    stopping.set()
    sweeping.join(10)
    assert ledger.ran.count("recover") >= 3


def test_a_worker_that_names_no_region_is_in_the_usual_one() -> None:
    from storage import fleet

    old = {"role": "gpu", "gpu_type": "cpu", "models": {"quick": {"state": "warm"}}}
    found = fleet.gpu_workers({"old": old, "h": {"role": "housekeeping"}, "odd": {"role": "gpu"}})
    assert list(found) == ["old"]
    assert found["old"]["region"] == "local"
