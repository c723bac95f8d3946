"""Leases are renewed whatever the store answers."""

import dataclasses
import queue
import threading
from typing import Any

import pytest

from storage.contracts import errors
from tests.unit.test_phases import CLAIM
from workers.leases import EXIT_HANGING, Keeper


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


def test_a_load_that_hangs_ends_the_process_and_is_blamed_on_who_waits_for_it() -> None:
    returned: list[str] = []
    begun, ended = threading.Event(), queue.Queue[int]()

    class Ledger:
        def run(self, call: Any) -> bool:
            if call.script == "release":
                returned.append(call.arguments[0])
            return True

    keeper = Keeper(
        Ledger(), lease_s=3, beat_s=1, stall_limit_s=60, load_limit_s=5, loading_s=lambda: 6 * begun.is_set(),
        end_process=ended.put,
    )  # fmt: skip
    try:
        keeper.hold(dataclasses.replace(CLAIM, id="waiting")).loaded(0.5)
        keeper.hold(dataclasses.replace(CLAIM, id="preparing"))
        begun.set()
        assert (ended.get(timeout=10), returned) == (EXIT_HANGING, ["preparing"])
    finally:
        keeper.close()


def test_what_can_be_handed_back_is_whatever_the_store_says_to_the_rest() -> None:
    returned: list[str] = []

    class Odd:
        def run(self, call: Any) -> bool:
            if call.script == "release":
                returned.append(call.arguments[0])
                if call.arguments[0] == "first":
                    raise ValueError("an odd reply")
            return True

    keeper = Keeper(Odd(), lease_s=3, beat_s=1, stall_limit_s=60)
    try:
        for id_ in ("first", "second"):
            keeper.hold(dataclasses.replace(CLAIM, id=id_))
        keeper.hand_back()
    finally:
        keeper.close()
    assert returned == ["first", "second"]


def test_an_edit_that_hangs_ends_the_process_whatever_the_store_says() -> None:
    ended = queue.Queue[int]()

    class Odd:
        def run(self, call: Any) -> bool:
            if call.script in ("fail", "release"):
                raise ValueError("an odd reply")
            return True

    keeper = Keeper(Odd(), lease_s=3, beat_s=1, stall_limit_s=60, end_process=ended.put)
    try:
        # Its limit was over long ago.
        keeper.hold(dataclasses.replace(CLAIM, execution_limit_s=-60)).begin_editing()
        keeper.hold(dataclasses.replace(CLAIM, id="another"))
        assert ended.get(timeout=10) == EXIT_HANGING
    finally:
        keeper.close()
