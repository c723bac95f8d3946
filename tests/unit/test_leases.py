"""Leases are renewed whatever the store answers."""

import threading
from typing import Any

import pytest

from storage.contracts import errors
from tests.unit.test_editing import CLAIM
from workers.leases import Keeper


@pytest.mark.parametrize(
    "fault", [errors.StoreUnavailableError("away"), errors.StoreFullError("full"), ValueError("an odd reply")]
)
def test_a_fault_of_any_kind_does_not_end_the_renewing(fault: Exception) -> None:
    renewed, asked = threading.Event(), 0

    class Faulty:
        def run(self, call: Any) -> bool:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise fault
            renewed.set()
            return True

    keeper = Keeper(Faulty(), lease_s=3, beat_s=0.01, stall_limit_s=60)
    try:
        keeper.hold(CLAIM)
        assert renewed.wait(10)
    finally:
        keeper.close()
