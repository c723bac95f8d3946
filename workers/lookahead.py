"""When the next generation is to be claimed: early enough that the pipeline finds it prepared, and no earlier.

Claimed earlier than that it would be kept from a GPU that is idle now. What is needed is learnt from the last few generations:
where preparing takes 0.8 s and an edit 0.5 s, two are prepared ahead; where an edit takes ten seconds one is, at its end.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection

NEW = 0.3
"""Weight of the latest duration in an exponential moving average."""

SHORTEST_S = 0.001
"""An edit that takes no time at all would ask for ever more of them."""

GAPS_KEPT = 200

FOREVER_S = 3600.0


class Entry:
    """A generation on the conveyor: being prepared, waiting for the pipeline, or running."""

    def __init__(self, lookahead: "Lookahead", model: str, steps: int, claimed_at: float, queued_at: float) -> None:
        self._lookahead = lookahead
        self.model, self.steps, self.claimed_at, self.queued_at = model, steps, claimed_at, queued_at
        self.is_slow = False
        self.prepared_at: float | None = None
        self.began_at: float | None = None
        self.remaining_s: float | None = None
        self.is_postponed = False

    def prepared(self) -> None:
        """It waits for the pipeline."""
        self._lookahead.note_prepared(self)

    def set_postponed(self, is_postponed: bool) -> None:
        """Whether it waits for an earlier claim rather than for the pipeline."""
        self._lookahead.note_postponed(self, is_postponed)

    def begin(self) -> None:
        """The pipeline starts on it."""
        self._lookahead.note_begun(self)

    def advance(self, step: int) -> None:
        """`step` denoising steps are done."""
        self._lookahead.note_step(self, step)

    def end(self, *, is_typical: bool = False) -> None:
        """It is over, one way or the other; `is_typical` when it ran to its end and loaded nothing."""
        self._lookahead.note_ended(self, is_typical=is_typical)


class Lookahead:
    """What is on the conveyor ahead of the pipeline. Thread-safe.

    At most `most` generations are prepared ahead, and no more than `look_ahead_s` seconds of the pipeline's work. An input that
    takes longer than `patience_s` to arrive, or `idle_patience_s` while the pipeline has nothing to do, is not waited for:
    another generation is claimed beside it, and beside one that is postponed for such an input. One that is expected to be late
    is not waited for at all.
    """

    def __init__(
        self,
        look_ahead_s: float,
        *,
        most: int,
        patience_s: float,
        idle_patience_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_ahead_s, self._most, self._patience_s, self._clock = look_ahead_s, most, patience_s, clock
        self._idle_patience_s = patience_s if idle_patience_s is None else idle_patience_s
        self._entries: list[Entry] = []
        self._edit_s: dict[str, float] = {}
        self._prepare_s = 0.0
        self._ended_at: float | None = None
        self._gaps: deque[float] = deque(maxlen=GAPS_KEPT)
        self._changed = threading.Condition()

    @property
    def idle_ms(self) -> tuple[float, ...]:
        """How long the pipeline was idle before each of the last edits while that one had been waiting, in the queue or here."""
        with self._changed:
            return tuple(self._gaps)

    def claimed(self, model: str, steps: int, waited_s: float = 0.0, *, is_slow: bool = False) -> Entry:
        """A generation was claimed that had waited so long in the queue; `is_slow` when its input is expected to be late."""
        with self._changed:
            now = self._clock()
            entry = Entry(self, model, steps, now, now - waited_s)
            entry.is_slow = is_slow
            self._entries.append(entry)
            return entry

    def wait_for_next(self) -> None:
        """Block until another generation should be claimed."""
        with self._changed:
            while (pause_s := self.pause_s()) is not None:
                self._changed.wait(pause_s)

    def pause_s(self) -> float | None:
        """Seconds after which to ask again, unless something changes before; None: claim now."""
        now = self._clock()
        ahead, ask_again = [], FOREVER_S
        is_idle = not any(entry.began_at is not None or entry.prepared_at is not None for entry in self._entries)
        patience_s = self._idle_patience_s if is_idle else self._patience_s
        for entry in self._entries:
            left = entry.claimed_at + (0.0 if entry.is_slow else patience_s) - now
            is_ready = entry.prepared_at is not None and not entry.is_postponed
            if entry.began_at is None and (is_ready or left > 0):
                ahead.append(entry)
                ask_again = ask_again if is_ready else min(ask_again, left)
        running = next((entry for entry in self._entries if entry.began_at is not None), None)
        if not ahead and running is None:
            return None
        if len(ahead) >= self._depth({entry.model for entry in (*ahead, running) if entry is not None}):
            return ask_again
        work_s = sum(self._edit_s.get(entry.model, math.inf) for entry in ahead)
        too_much_s = work_s + (self._remaining_s(running, now) if running else 0.0) - self._look_ahead_s
        return None if too_much_s <= 0 else min(ask_again, max(too_much_s, SHORTEST_S))

    def _depth(self, models: Collection[str]) -> int:
        """How many are to be ahead of the running edit so that the next is prepared when it ends."""
        known = [self._edit_s[model] for model in models if model in self._edit_s]
        shortest = max(min(known, default=math.inf), SHORTEST_S)
        return max(1, min(self._most, math.ceil(self._prepare_s / shortest)))

    def _remaining_s(self, running: Entry, now: float) -> float:
        if running.remaining_s is not None:
            return running.remaining_s
        expected = self._edit_s.get(running.model, math.inf)
        return max(0.0, expected - (now - (running.began_at or now)))

    def note_prepared(self, entry: Entry) -> None:
        """See `Entry.prepared`."""
        with self._changed:
            entry.prepared_at = self._clock()
            # One slow input tells nothing of the next.
            took_s = min(entry.prepared_at - entry.claimed_at, self._patience_s)
            self._prepare_s = took_s if not self._prepare_s else (1 - NEW) * self._prepare_s + NEW * took_s
            self._changed.notify_all()

    def note_postponed(self, entry: Entry, is_postponed: bool) -> None:
        """See `Entry.set_postponed`."""
        with self._changed:
            entry.is_postponed = is_postponed
            self._changed.notify_all()

    def note_begun(self, entry: Entry) -> None:
        """See `Entry.begin`."""
        with self._changed:
            entry.began_at = self._clock()
            if self._ended_at is not None:
                self._gaps.append(1000 * max(0.0, entry.began_at - max(self._ended_at, entry.queued_at)))
            self._changed.notify_all()

    def note_step(self, entry: Entry, step: int) -> None:
        """See `Entry.advance`."""
        with self._changed:
            elapsed_s = self._clock() - (entry.began_at or self._clock())
            entry.remaining_s = elapsed_s / step * (entry.steps - step)
            self._changed.notify_all()

    def note_ended(self, entry: Entry, *, is_typical: bool) -> None:
        """See `Entry.end`."""
        with self._changed:
            now = self._clock()
            if entry.began_at is not None:
                self._ended_at = now
                if is_typical:
                    before, took_s = self._edit_s.get(entry.model), now - entry.began_at
                    self._edit_s[entry.model] = took_s if before is None else (1 - NEW) * before + NEW * took_s
            if entry in self._entries:
                self._entries.remove(entry)
            self._changed.notify_all()
