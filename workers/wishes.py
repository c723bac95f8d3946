"""Loads models that are wanted ahead of work, keeps them, and lets them go."""

import functools
from collections.abc import Callable, Sequence

from storage.contracts import errors
from storage.ledger import call, claims, presence
from workers.residency import Residency


class Wishes:
    """Sees to one worker's wishes.

    `on_pipeline` runs something where models are loaded, waits for it, and ends the process where the GPU fails.
    """

    def __init__(
        self,
        *,
        ledger: call.Ledger,
        claimant: claims.Claimant,
        models: Sequence[str],
        residency: Residency,
        is_busy: Callable[[], bool],
        on_pipeline: Callable[[Callable[[], object]], None],
    ) -> None:
        self._ledger = ledger
        self._claimant = claimant
        self._models = models
        self._residency = residency
        self._is_busy = is_busy
        self._on_pipeline = on_pipeline
        self._let_go: frozenset[tuple[str, presence.Wanted]] = frozenset()

    def look(self) -> None:
        """Do what is wanted just now. Raises `errors.StoreUnavailableError`."""
        residency = self._residency
        can = [model for model in self._models if model in residency.resident() or residency.has_room(model)]
        wishes = self._ledger.run(presence.wanted(self._claimant, can))
        residency.keep(model for model, wish in wishes.items() if wish.how == "always")
        gone = {(model, wish) for model, wish in wishes.items() if wish.how == "never"}
        self._let_go &= gone
        for model, wish in gone - self._let_go if not self._is_busy() else ():
            self._on_pipeline(functools.partial(self._evict, model, wish))
        for model, wish in wishes.items():
            if wish.how == "never" or model in residency.resident():
                continue
            # What is kept gives way to work, and comes back when there is none; what work under way needs does not go for a wish.
            in_the_way = self._is_busy() and bool(residency.would_evict(model))
            if (wish.how == "once" and not in_the_way) or not (self._is_busy() or model in residency.failed()):
                self._on_pipeline(functools.partial(self._load, model))

    def _evict(self, model: str, wish: presence.Wanted) -> None:
        # Where work that was claimed meanwhile would have loaded it just now.
        if not self._is_busy():
            # Once for each wish: what work asks for anew later is loaded anew.
            self._let_go |= {(model, wish)}
            self._residency.let_go(model)

    def _load(self, model: str) -> None:
        try:
            self._residency.pipeline(model, again=True)
        except errors.GpuFaultError:
            raise  # nothing can be computed any more in this process
        except errors.DarkroomError:
            return  # its state says why
