"""A process that is told to stop by a signal stops, whatever its main thread is doing then."""

import subprocess
import sys
import threading
import time

import pytest

from storage.signals import SignalEvent

INTERRUPTED = """
import signal
from storage.signals import SignalEvent

for round in range(300):
    event = SignalEvent()
    signal.signal(signal.SIGALRM, lambda *_: event.set())
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    while not event.wait(0):
        pass
print("stopped 300 times")
"""


def test_a_handler_sets_it_wherever_it_interrupts_the_thread_that_waits() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == "stopped 300 times\n", done.stderr


def test_it_is_set_for_all_who_wait_now_and_later() -> None:
    event, told = SignalEvent(), list[bool]()
    waiting = [threading.Thread(target=lambda: told.append(event.wait(60))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    assert not event.is_set()
    event.set()
    for thread in waiting:
        thread.join(60)
    assert told == [True, True, True]
    assert event.wait(0)
    assert event.is_set()


def test_a_wait_ends_without_it_when_its_time_is_over() -> None:
    event, before = SignalEvent(), time.monotonic()
    assert not event.wait(0.05)
    assert time.monotonic() - before >= 0.05


def test_it_stays_set() -> None:
    with pytest.raises(RuntimeError, match="taken back"):
        SignalEvent().clear()
