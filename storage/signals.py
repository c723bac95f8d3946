"""Telling threads what a signal told the process."""

import queue
import threading


class SignalEvent(threading.Event):
    """An event that the handler of a signal may set while the main thread waits for it.

    A handler runs in the main thread, between two of its instructions. Where these are in `wait`, an ordinary event's `set`
    would wait for ever for a lock that its own thread holds. A `SimpleQueue` is made to be put into from there.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set

    def set(self) -> None:
        """Have all who wait go on, now and later."""
        self._is_set = True
        self._told.put(None)

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is set, or for so many seconds; whether it is set."""
        try:
            self._told.get(timeout=None if timeout is None else max(timeout, 0))
        except queue.Empty:
            return self._is_set
        # For the next who waits.
        self._told.put(None)
        return True

    def clear(self) -> None:
        """Refused: what a signal asked for stands. Raises `RuntimeError`."""
        raise RuntimeError("a signal cannot be taken back")
