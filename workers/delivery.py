"""Puts a result into its caller's own bucket, by the URL that the caller's request signed for it."""

import logging
import time
from collections.abc import Iterable

from storage.outside import Outside, RefusedError, TooLongError, UnansweredError

log = logging.getLogger(__name__)

TRIES = 3
PAUSE_S = 1.0


class Delivery:
    """Puts bytes to addresses that callers name. Safe to use from several threads."""

    def __init__(self, *, limit_s: float, allowed: Iterable[str] = ()) -> None:
        """`allowed` are `host:port` pairs that may be private."""
        self._outside = Outside(limit_s=limit_s, allowed=allowed)

    def deliver(self, url: str, body: bytes, content_type: str) -> bool:
        """Whether the other side took it in time. Neither the URL nor the other side's words are logged."""
        # One limit for all tries: a bucket that hangs holds up results of others.
        deadline = time.monotonic() + self._outside.limit_s
        for attempt in range(TRIES):
            if attempt:
                time.sleep(PAUSE_S)
            try:
                answer = self._outside.exchange(
                    "PUT",
                    url,
                    headers={"Content-Type": content_type},
                    content=body,
                    max_bytes=65536,
                    deadline=deadline,
                )
            except RefusedError:
                log.warning("a result was not delivered: the address may not be reached")
                return False
            except (UnansweredError, TooLongError) as exc:
                log.warning("a result was not delivered: %s", exc)
                continue
            if answer.status in (200, 201, 204):
                return True
            log.warning("a result was not delivered: the store answered %d", answer.status)
            if answer.status < 500:
                return False
        return False

    def close(self) -> None:
        """Close connections."""
        self._outside.close()
