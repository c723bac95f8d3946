"""Puts a result into its caller's own bucket, by the URL that the caller's request signed for it."""

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from storage.gate import RefusedError
from storage.outside import NoPublicAddressError, Outside, TooLongError, UnansweredError

log = logging.getLogger(__name__)

TRIES = 3
PAUSE_S = 1.0
OF_A_TENANT = 8
"""Deliveries of one tenant at the same time. A bucket so slow that more would be is not waited for: what lies in it is said."""


class Delivery:
    """Puts bytes to addresses that callers name. Safe to use from several threads."""

    def __init__(self, *, limit_s: float, allowed: Iterable[str] = ()) -> None:
        """`allowed` are `host:port` pairs that may be private."""
        self._outside = Outside(limit_s=limit_s, allowed=allowed)
        self._under_way: Counter[str] = Counter()
        self._changing = threading.Lock()

    def deliver(self, tenant: str, url: str, body: bytes, content_type: str) -> bool:
        """Whether the other side took it in time. Neither the URL nor the other side's words are logged."""
        with self._room(tenant) as free:
            if not free:
                log.warning("a result was not delivered: %d of %s are under way", OF_A_TENANT, tenant)
                return False
            return self._delivered(url, body, content_type)

    @contextlib.contextmanager
    def _room(self, tenant: str) -> Iterator[bool]:
        with self._changing:
            free = self._under_way[tenant] < OF_A_TENANT
            self._under_way[tenant] += 1
        try:
            yield free
        finally:
            with self._changing:
                self._under_way[tenant] -= 1

    def _delivered(self, url: str, body: bytes, content_type: str) -> bool:
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
            except (RefusedError, NoPublicAddressError):
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
