"""Listens for cancellations, so that a running edit stops at its next step. A missed message is made up for by the next beat."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

from storage import keys

log = logging.getLogger(__name__)


class StopListener:
    """Follows the channel of stopped generations from a thread of its own."""

    def __init__(self, connection: redis.Redis, stop: Callable[[str], None], *, ping_s: float = 5.0) -> None:
        self._pubsub: Any = connection.pubsub
        self._ping_s = ping_s
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
                with self._pubsub() as channel:
                    channel.subscribe(keys.STOPPED)
                    self._listen(channel)
            except redis.RedisError as exc:
                log.warning("not listening for cancellations: %s", type(exc).__name__)
                self._closing.wait(1)

    def _listen(self, channel: Any) -> None:
        heard = pinged = time.monotonic()
        while not self._closing.is_set():
            message = channel.get_message(timeout=0.5)
            now = time.monotonic()
            if message is not None:
                heard = now
                if message["type"] == "message":
                    self._stop(str(message["data"]))
            elif now - heard > 2 * self._ping_s:
                # A connection that died without a word looks like one on which nothing happens.
                raise redis.ConnectionError("no answer")
            elif now - max(heard, pinged) > self._ping_s:
                # Subscribing again changes nothing and is answered; the client keeps the answers to a PING to itself.
                channel.subscribe(keys.STOPPED)
                pinged = now
