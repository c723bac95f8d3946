"""Moves finished generations from Redis to the object store, and deletes them when their time is over."""

import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence

from pydantic import TypeAdapter

from storage.contracts import errors
from storage.ledger import archive, call
from storage.ledger.archive.lapses import LISTS, Lapse, lapsed, lapses_of, next_due_ms
from storage.objects import Objects

log = logging.getLogger(__name__)

_LAPSES = TypeAdapter(list[Lapse])

MOST_MOVED = 20
"""Moves in one go, before the stop is looked at again."""


class Archiver:
    """May die at any moment, and others of its kind may run beside it."""

    def __init__(
        self,
        ledger: call.Ledger,
        objects: Objects,
        *,
        after_s: float,
        moved: Callable[[str, Sequence[str]], None] = lambda sweep, states: None,
    ) -> None:
        """A generation's record moves `after_s` after its end, or up to as long again later, with others.

        `moved` is told of each.
        """
        self._counted = moved
        self._ledger = ledger
        self._objects = objects
        self._after_s = after_s
        self._adopting: str | None = "0"

    def adopt(self) -> None:
        """Note some of what finished before this release archived anything. Raises `errors.StoreUnavailableError`."""
        if self._adopting is not None:
            cursor = self._ledger.run(archive.adopt(self._adopting))
            self._adopting = None if cursor == "0" else cursor

    def move(self) -> None:
        """Move what is over. Raises `errors.TransientError`."""
        for _ in range(MOST_MOVED):
            if not self._moved():
                return

    def _moved(self) -> bool:
        names = {is_end: f"{LISTS}{uuid.uuid4()}.json" for is_end in (False, True)}
        requests = self._ledger.run(
            archive.archivable(after_s=self._after_s, gather_s=self._after_s, lists=tuple(names.values()))
        )
        if not requests:
            return False
        lists: dict[str, list[Lapse]] = defaultdict(list)
        began, written = time.monotonic(), 0
        try:
            for request in requests:
                for one in request.archived:
                    self._put(began, one.key, one.encoded())
                for lapse in request.lapses():
                    lists[names[lapse.is_end]].append(lapse)
                written += 1
                # What an object store that is slow does not take within the time goes another time, not all of it every time.
                if time.monotonic() - began > archive.HOLD_S / 5:
                    break
            for key, lapses in lists.items():
                self._put(began, key, _LAPSES.dump_json(lapses))
        except errors.TransientError:
            self._ledger.run(archive.let_go(requests))
            raise
        if requests[written:]:
            self._ledger.run(archive.let_go(requests[written:]))
        requests = requests[:written]
        moved = self._ledger.run(
            archive.archived(requests, {key: next_due_ms(lapses) for key, lapses in lists.items()})
        )
        # What was retried or erased meanwhile stays as it is; that a list tells of it has no effect.
        count = sum(len(request.archived) for request, is_moved in zip(requests, moved, strict=True) if is_moved)
        self._counted("move", ["archived"] * count)
        log.info("%d finished generations are archived", count)
        return True

    def lapse(self, key: str) -> int | None:
        """Have deleted what a list tells of, whose time is over. Then the list goes, or tells of the rest: when that goes.

        Raises `errors.TransientError`.
        """
        body = self._objects.find(key)
        lapses = lapses_of(body) if body else []
        states = self._ledger.run(lapsed(lapses))
        for one, state in zip(lapses, states, strict=True):
            if state == "due" and one.erase:
                # Its events go with it, which `erase` does to what is here.
                self._restore(one)
        later = [one for one, state in zip(lapses, states, strict=True) if state == "later"]
        if later:
            self._objects.put(key, _LAPSES.dump_json(later), "application/json")
            return next_due_ms(later)
        self._objects.delete(key)
        return None

    def _put(self, began: float, key: str, body: bytes) -> None:
        """Store, if that is over before others may have taken what is moved: after a pause it may not be."""
        if time.monotonic() - began > archive.LAST_WRITE_S:
            raise errors.ObjectsUnavailableError("moving what is over took too long")
        self._objects.put(key, body, "application/json")

    def _restore(self, lapse: Lapse) -> None:
        records = self._found(lapse.tenant, [lapse.id])
        if records:
            self._ledger.run(archive.restore([*records, *self._found(lapse.tenant, records[0].siblings)]))

    def _found(self, tenant: str, ids: Sequence[str]) -> list[archive.Archived]:
        keys = [key for id_ in ids if (key := archive.key_of(tenant, id_)) is not None]
        return [archive.Archived.read(body) for key in keys if (body := self._objects.find(key)) is not None]
