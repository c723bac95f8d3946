"""Stopping a worker: within a grace period it finishes what it holds, then it hands the rest back."""

import logging
import os
import signal
import threading
from types import FrameType
from typing import Protocol

from celery.worker import state

log = logging.getLogger(__name__)


class Taker(Protocol):
    """What takes work."""

    def drain(self) -> None:
        """Take nothing new."""
        ...


class Holder(Protocol):
    """What holds the work that was taken."""

    def hand_back(self) -> None:
        """Give it to other workers."""
        ...


class Stopper:
    """Stops a worker: asked once it finishes what it holds, within a grace period; asked twice it hands everything back."""

    def __init__(self, taker: Taker, holder: Holder, *, grace_s: float) -> None:
        self._taker = taker
        self._holder = holder
        self._grace = threading.Timer(grace_s, self._hand_back)
        self._grace.daemon = True
        self._asked = False

    def install(self) -> None:
        """Take over SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            # Not here: a signal may arrive while this thread holds what handing back needs.
            threading.Thread(target=self._hand_back).start()
            return
        self._asked = True
        log.warning("stopping: finishing what is held within %g s", self._grace.interval)
        self._taker.drain()
        self._grace.start()
        state.should_stop = 0

    def _hand_back(self) -> None:
        self._holder.hand_back()
        # The pipeline's thread may be in the middle of a long step; nothing of it is wanted any more.
        os._exit(0)
