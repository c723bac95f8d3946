"""What a worker does every so often goes on, and says in one line that a store is away."""

import logging
import threading

import pytest
import redis

from storage.contracts import errors
from workers.presence import every

AWAY = errors.StoreUnavailableError("The store does not answer (TimeoutError)")


@pytest.mark.parametrize(
    ("fault", "level", "has_trace"),
    [
        (AWAY, logging.WARNING, False),
        (redis.TimeoutError("late"), logging.WARNING, False),
        (KeyError("x"), logging.ERROR, True),
    ],
)
def test_what_goes_wrong_is_told_by_what_was_done_and_tried_again(
    caplog: pytest.LogCaptureFixture, fault: Exception, level: int, has_trace: bool
) -> None:
    tries, again = [0], threading.Event()

    def look() -> None:
        tries[0] += 1
        if tries[0] == 1:
            raise fault
        again.set()

    with every(0.01, "looking at the other workers", look):
        assert again.wait(10)
    (told,) = caplog.records
    assert told.getMessage().startswith("looking at the other workers")
    assert told.getMessage().endswith("tried again in 0.01 s")
    assert (told.levelno, told.exc_info is not None) == (level, has_trace)
