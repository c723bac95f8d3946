"""Listens for cancellations, so that a running edit stops at its next step. A missed message is made up for by the next beat."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import redis

from storage import keys

log = logging.getLogger(__name__)


class StopListener:
    """Follows the channel of stopped generations from a thread of its own."""

    def __init__(self, connection: redis.Redis, stop: Callable[[str], None]) -> None:
        self._pubsub: Any = connection.pubsub
        self._stop = stop
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stops", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with self._pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(keys.STOPPED)
                    while not self._closing.is_set():
                        message = channel.get_message(timeout=0.5)
                        if message is not None:
                            self._stop(str(message["data"]))
            except redis.RedisError as exc:
                log.warning("not listening for cancellations: %s", type(exc).__name__)
                self._closing.wait(1)
