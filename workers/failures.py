"""Which models could not be loaded a moment ago, and why: they are not tried again at once, nor is their work claimed."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from storage.contracts import errors


@dataclass
class Failures:
    """Thread-safe. A failure counts for `rest_s` seconds; why and how often is told until the model was loaded."""

    rest_s: float
    clock: Callable[[], float] = time.monotonic
    _failed: dict[str, tuple[float, type[errors.DarkroomError], str]] = field(init=False, default_factory=dict)
    _times: Counter[str] = field(init=False, default_factory=Counter)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def note(self, model: str, error: errors.DarkroomError) -> None:
        """It could not be loaded just now."""
        with self._lock:
            # Not the exception itself: its traceback holds what was loaded so far.
            self._failed[model] = (self.clock(), type(error), error.message)
            self._times[model] += 1

    def forget(self, model: str) -> None:
        """It is loaded."""
        with self._lock:
            self._failed.pop(model, None)
            self._times.pop(model, None)

    def lately(self) -> tuple[str, ...]:
        """Models that could not be loaded a moment ago."""
        with self._lock:
            return tuple(model for model, (at, *_) in self._failed.items() if self.clock() - at < self.rest_s)

    def check(self, model: str) -> None:
        """Raises again what was raised a moment ago."""
        if model in self.lately():
            _, kind, message = self._failed[model]
            raise kind(message)

    def state(self, model: str) -> dict[str, object] | None:
        """`failed` with the reason and how often, or None."""
        with self._lock:
            if model not in self._failed:
                return None
            return {"state": "failed", "reason": self._failed[model][2], "failures": self._times[model]}
