"""Taking the next generation: which queues come first, and what is left to workers that have the model loaded."""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from storage.contracts import errors, generations
from storage.ledger import call, claims
from workers.leases import Keeper, Lease

T = TypeVar("T")

log = logging.getLogger(__name__)

PASS_ON_S = 0.2
"""A ticket for work that is left to others is passed on after a moment: at once, it would come straight back."""


class Claiming:
    """Claims for one worker. The queues are as models are just now: loaded here, not to be loaded here, loaded elsewhere."""

    def __init__(
        self,
        *,
        claimant: claims.Claimant,
        queues: Sequence[str],
        ledger: call.Ledger,
        keeper: Keeper,
        warm_queues: Callable[[], Sequence[str]] = tuple,
        closed_queues: Callable[[], Sequence[str]] = tuple,
        warm_elsewhere: Callable[[], Sequence[str]] = tuple,
        pass_on: Callable[[str], None] = lambda queue: None,
        affinity_s: float = 0,
        defer_s: float = 0,
    ) -> None:
        self._claimant = claimant
        self._queues = list(queues)
        self._ledger = ledger
        self._keeper = keeper
        self._warm_queues = warm_queues
        self._closed_queues = closed_queues
        self._warm_elsewhere = warm_elsewhere
        self._pass_on = pass_on
        self._affinity_ms = int(affinity_s * 1000)
        self._defer_ms = int(defer_s * 1000)

    def claim(self, *, has_ticket: bool = True, slow_tenants: Collection[str] = ()) -> Lease | None:
        """Take the next generation; None when nothing waits, or only work that is left to others for a moment.

        What the `slow_tenants` have whose pictures are fetched is left to others as well.

        Raises `errors.StoreUnavailableError`.
        """
        # The queue served last goes last, so that a busy one does not starve the rest; those of loaded models before others,
        # and last those of models that are loaded elsewhere.
        loaded, closed, elsewhere = self._warm_queues(), self._closed_queues(), self._warm_elsewhere()
        deferred = {queue for queue in elsewhere if queue not in loaded}
        ordered = sorted(
            (queue for queue in self._queues if queue not in closed),
            key=lambda queue: (queue in deferred, queue not in loaded),
        )
        wanted = claims.claim(
            self._claimant,
            self._keeper.lease_ms,
            ordered,
            preferred=sum(queue in loaded for queue in ordered),
            patience_ms=self._affinity_ms,
            deferred=sum(queue in deferred for queue in ordered),
            deferral_ms=self._defer_ms,
            slow_tenants=slow_tenants,
        )
        claim = self._taken(wanted)
        while isinstance(claim, claims.Unreadable):
            # It rests now, so the next is another one: what cannot be read keeps nobody waiting.
            log.error(
                "%s cannot be read by this version: %s", claim.id, self._ledger.run(claims.release_unreadable(claim))
            )
            claim = self._taken(wanted)
        if isinstance(claim, claims.Deferred):
            if has_ticket:
                # It was meant for a worker that has the model loaded.
                time.sleep(PASS_ON_S)
                self._pass_on(claim.queue)
            return None
        if claim is None:
            return None
        self._queues.remove(claim.queue)
        self._queues.append(claim.queue)
        log.info("%s claimed, attempt %d", claim.id, claim.attempt)
        return self._keeper.hold(claim)

    def _taken(self, wanted: call.Call[T]) -> T:
        """What there is to be taken. A claim that could be lost with the primary is handed back, not worked on.

        Its fencing token would be given out again. Raises `errors.StoreUnavailableError`.
        """
        try:
            return self._ledger.run(wanted)
        except errors.StoreUnavailableError as exc:
            if isinstance(exc.outcome, generations.Claim):
                with contextlib.suppress(errors.StoreUnavailableError):
                    self._ledger.run(claims.release(exc.outcome))
            raise
