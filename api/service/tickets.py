"""Sends tickets beside the answer: publishing blocks, and an unreachable broker must not hold up a request.

What cannot be sent is not retried here; the housekeeping worker tops tickets up.
"""

import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import celery

from storage import queues
from storage.contracts import errors
from storage.ledger.call import MAX_TICKETS

log = logging.getLogger(__name__)


class TicketSender:
    """A thread that publishes tickets."""

    def __init__(self, app: celery.Celery) -> None:
        self._app = app
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tickets")
        self._waiting: Counter[str] = Counter()
        self._lock = threading.Lock()

    def send(self, queue: str) -> None:
        """Have a ticket sent. Returns at once; when as many wait here as a queue may hold, no more is sent."""
        with self._lock:
            if self._waiting[queue] >= MAX_TICKETS:
                return
            self._waiting[queue] += 1
        self._thread.submit(self._send, queue)

    def close(self) -> None:
        """Send what waits and end the thread."""
        self._thread.shutdown(wait=True)

    def _send(self, queue: str) -> None:
        with self._lock:
            self._waiting[queue] -= 1
        try:
            queues.send_ticket(self._app, queue)
        except errors.StoreUnavailableError as exc:
            log.warning("no ticket sent to %s: %s", queue, exc)
