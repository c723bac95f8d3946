"""What a worker does as long as something waits: when a ticket comes, and now and then by itself."""

import abc
import threading


class Serving(abc.ABC):
    """Serves what waits, one after the other. One thread does at a time."""

    def __init__(self) -> None:
        self._serving = threading.Lock()
        self._draining = threading.Event()
        self._looking = threading.Event()

    @abc.abstractmethod
    def _serve_next(self, *, has_ticket: bool) -> bool:
        """Take what is next, if there is any. Returns when the one after it may be taken; False when nothing waits."""

    def serve(self, *, has_ticket: bool = True) -> None:
        """Serve until nothing waits, or until told to drain."""
        with self._serving:
            while not self._draining.is_set() and self._serve_next(has_ticket=has_ticket):
                pass

    def look_by_itself(self, every_s: float) -> None:
        """Serve now and then without a ticket, until told to drain: a worker whose tickets go astray is slow, not deaf."""
        while not self._draining.is_set():
            self._looking.wait(every_s)
            self._looking.clear()
            self.serve(has_ticket=False)

    def look_now(self) -> None:
        """What was left waiting may be taken now."""
        self._looking.set()

    def drain(self) -> None:
        """Take nothing new."""
        self._draining.set()
        self._looking.set()

    def _wait_until_drained(self) -> None:
        """Drain. The serving thread takes nothing more, but may be busy with what it has taken."""
        self.drain()
        with self._serving:
            pass
