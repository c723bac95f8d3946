"""In which order models are loaded and edits run: never so that a model goes which an earlier claim still needs."""

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

WouldEvict = Callable[[str], frozenset[str]]
"""Which loaded models would have to go if this one were loaded now."""

Action = Callable[[], object]

log = logging.getLogger(__name__)

Claim = TypeVar("Claim")


class Order(Generic[Claim]):
    """Held claims in the order in which they were made, and what waits for some of them. Thread-safe.

    While an earlier claim still waits for its input, one of a model that fits beside the loaded ones goes ahead; one that would
    evict the earlier one's model waits. It waits for earlier claims alone, so nothing waits for ever.
    """

    def __init__(self, would_evict: WouldEvict) -> None:
        self._would_evict = would_evict
        self._held: dict[Claim, str] = {}
        self._postponed: list[Action] = []
        self._lock = threading.Lock()

    def hold(self, claim: Claim, model: str) -> None:
        """A claim was made."""
        with self._lock:
            self._held[claim] = model

    def admits(self, claim: Claim, ask_again: Action) -> bool:
        """Whether a claim may use the device now; if not, `ask_again` is kept until an earlier claim is settled."""
        with self._lock:
            if not self._is_in_the_way(claim):
                return True
            self._postponed.append(ask_again)
            return False

    def settle(self, claim: Claim) -> list[Action]:
        """A claim was edited or given up. Returns what was kept, for the caller to call in this order."""
        with self._lock:
            self._held.pop(claim, None)
            postponed, self._postponed = self._postponed, []
            return postponed

    def _is_in_the_way(self, claim: Claim) -> bool:
        model = self._held.get(claim)
        if model is None:
            return False
        try:
            evicted = self._would_evict(model)
        except Exception:
            # Better an order that costs a load than an edit that is never asked for.
            log.exception("nobody knows what %s would evict", model)
            return False
        for earlier, needed in self._held.items():
            if earlier is claim:
                return False
            if needed in evicted:
                return True
        return False
