"""Keeps the leases of what this worker holds: one thread renews them all, reports progress and notices when one is lost."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from storage.contracts import errors, generations
from storage.ledger import calls

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 0.1
"""Progress is written at most this often, whatever the step rate."""


class Lease:
    """One held claim. The pipeline's thread only touches memory here; it never waits for the network."""

    def __init__(self, claim: generations.Claim) -> None:
        self.claim = claim
        self.step = 0
        self._stopped = threading.Event()

    def advance(self, step: int) -> None:
        """`step` denoising steps are done. Raises `errors.CancelledError` when the work is no longer wanted."""
        self.step = step
        self.check()

    def check(self) -> None:
        """Raises `errors.CancelledError` when the work is no longer wanted."""
        if self._stopped.is_set():
            raise errors.CancelledError("The generation was cancelled or given to another worker")

    def stop(self) -> None:
        """The work is no longer wanted."""
        self._stopped.set()


class Keeper:
    """Renews leases from a thread of its own."""

    def __init__(self, ledger: calls.Ledger, *, lease_s: float, beat_s: float) -> None:
        self._ledger = ledger
        self._lease_ms = int(lease_s * 1000)
        self._beat_s = beat_s
        self._leases: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @property
    def lease_ms(self) -> int:
        """How long a lease lasts, in milliseconds."""
        return self._lease_ms

    def hold(self, claim: generations.Claim) -> Lease:
        """Start renewing a claim's lease."""
        lease = Lease(claim)
        with self._lock:
            self._leases[claim.id] = lease
        return lease

    def drop(self, lease: Lease) -> None:
        """Stop renewing."""
        with self._lock:
            self._leases.pop(lease.claim.id, None)

    @contextmanager
    def dropping(self, lease: Lease) -> Iterator[None]:
        """Stop renewing when the block ends, however it ends."""
        try:
            yield
        finally:
            self.drop(lease)

    def stop(self, id_: str) -> None:
        """A generation was cancelled: if it is held here, its work is to stop."""
        with self._lock:
            lease = self._leases.get(id_)
        if lease is not None:
            lease.stop()

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        beaten: dict[str, tuple[float, int]] = {}
        while not self._closing.wait(PROGRESS_EVERY_S):
            with self._lock:
                held = list(self._leases.values())
            now = time.monotonic()
            for lease in held:
                at, step = beaten.get(lease.claim.id, (0.0, 0))
                if lease.step > step or now - at >= self._beat_s:
                    beaten[lease.claim.id] = (now, lease.step)
                    self._beat(lease)
            beaten = {lease.claim.id: beaten[lease.claim.id] for lease in held}

    def _beat(self, lease: Lease) -> None:
        try:
            if not self._ledger.run(calls.beat(lease.claim, self._lease_ms, lease.step)):
                lease.stop()
        except errors.StoreUnavailableError as exc:
            log.warning("lease of %s not renewed: %s", lease.claim.id, exc)
