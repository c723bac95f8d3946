"""What a worker does as long as something waits: when a ticket comes, and now and then by itself."""

import abc
import threading


class Serving(abc.ABC):
    """Serves what waits, one after the other. One thread does at a time."""

    def __init__(self) -> None:
        self._serving = threading.Lock()
        self._draining = threading.Event()

    @abc.abstractmethod
    def _serve_next(self, *, has_ticket: bool) -> bool:
        """Take what is next, if there is any. Returns when the one after it may be taken; False when nothing waits."""

    def serve(self, *, wait: bool = True) -> None:
        """Serve until nothing waits, or until told to drain. Without `wait`, nothing is done while another thread does."""
        if not self._serving.acquire(blocking=wait):
            return
        try:
            while not self._draining.is_set() and self._serve_next(has_ticket=wait):
                pass
        finally:
            self._serving.release()

    def look_by_itself(self, every_s: float) -> None:
        """Serve now and then without a ticket, until told to drain: a worker whose tickets go astray is slow, not deaf."""
        while not self._draining.wait(every_s):
            self.serve(wait=False)

    def drain(self) -> None:
        """Take nothing new."""
        self._draining.set()

    def _wait_until_drained(self) -> None:
        """Drain. The serving thread takes nothing more, but may be busy with what it has taken."""
        self.drain()
        with self._serving:
            pass
