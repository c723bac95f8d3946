"""When an attempt fails: why, whether there is another, and after how long."""

import logging
import random
import time
from collections.abc import Callable

from storage import traces
from storage.contracts import errors, samples
from storage.ledger import call, claims
from workers.leases import Lease

log = logging.getLogger(__name__)


class Retrying:
    """Records failures. After `rest_s` seconds, doubled each time, there is another of at most `max_attempts`."""

    def __init__(
        self,
        *,
        claimant: claims.Claimant,
        ledger: call.Ledger,
        max_attempts: int,
        max_losses: int = 2,
        rest_s: float,
        failed: Callable[[str, str], None] = lambda model, code: None,
    ) -> None:
        """`failed` is told of every attempt that failed: its model, and the error's code."""
        self._failed = failed
        self._claimant = claimant
        self._ledger = ledger
        self._max_attempts = max_attempts
        self._max_losses = max_losses
        self._rest_s = rest_s

    def give_up(self, lease: Lease, error: errors.DarkroomError) -> None:
        """Record why an attempt ended; a transient reason queues it again while attempts are left."""
        claim = lease.claim
        if isinstance(error, errors.CancelledError):
            log.info("%s stopped: %s", claim.id, error.code)
            return
        self._failed(claim.edit.model, error.code)
        traces.fail(lease.span, error.code)
        rest_s = self._rest(claim.attempt) if isinstance(error, errors.TransientError) else None
        sample = None
        if error.code not in samples.NOT_THE_TARGETS_FAULT:
            sample = samples.Sample(at_ms=round(time.time() * 1000), outcome=error.code)
        fail = claims.fail(
            claim,
            error,
            rest_s=rest_s,
            max_attempts=self._max_attempts,
            target=self._claimant.target(claim.edit.model),
            sample=sample,
            # After a fault of the GPU its process ends: another payload like that would tour the fleet.
            max_losses=self._max_losses if isinstance(error, errors.GpuFaultError) else None,
        )
        try:
            state = self._ledger.run(fail)
            log.info("%s %s: %s", claim.id, state, error.code)
        except errors.TransientError as exc:
            log.warning("%s: could not be recorded as failed; its lease will run out: %s", claim.id, exc)

    def _rest(self, attempt: int) -> float:
        """Seconds before the next attempt: doubled each time, and jittered so that what failed together returns apart."""
        return self._rest_s * 2.0 ** (attempt - 1) * random.uniform(0.5, 1)  # noqa: S311  (jitter)
