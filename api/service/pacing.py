"""How fast a tenant may ask, and an API key submit and send pictures."""

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable

from storage.contracts import access, edits, errors, submissions
from storage.ledger import access as ledger_access
from storage.ledger import call

AT_ONCE_S = 6.0
"""Seconds whose worth of requests may come at once: a tenth of a minute's."""

REMEMBERED = 10_000
"""Tenants, those who asked last."""


class RequestPace:
    """Requests of each tenant to this process, of whatever kind, counted in memory before any of a body is read."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`per_minute` None does not count."""
        self._per_minute = per_minute
        self._clock = clock
        # When the next request of each would be due if they came evenly (GCRA).
        self._due: OrderedDict[str, float] = OrderedDict()

    def check(self, tenant: str) -> None:
        """Count a request. Raises `errors.TooManyRequestsError`."""
        if self._per_minute is None:
            return
        now, unit_s = self._clock(), 60 / self._per_minute
        due = max(self._due.get(tenant, now), now) + unit_s
        too_soon_s = due - now - max(AT_ONCE_S, unit_s)
        if too_soon_s > 1e-9:
            message = f"At most {self._per_minute} requests in a minute"
            rate = ("requests", self._per_minute, due - unit_s - now)
            raise errors.TooManyRequestsError(message, retry_after=too_soon_s, rate=rate)
        self._due[tenant] = due
        self._due.move_to_end(tenant)
        if len(self._due) > REMEMBERED:
            self._due.popitem(last=False)


class Pacing:
    """Counts what keys send against their rates."""

    def __init__(self, ledger: call.AsyncLedger) -> None:
        self._ledger = ledger

    async def submission(self, submission: submissions.Submission, caller: access.Caller) -> access.Pace | None:
        """Count a submission's generations and the pictures it brings; how its key then stands against its rate, if it has one.

        Raises `errors.TooManyRequestsError` and `errors.PayloadTooLargeError`.
        """
        await self.bytes(caller, sent_bytes(submission))
        return await self.generations(caller, submission.count)

    async def generations(self, caller: access.Caller, count: int) -> access.Pace | None:
        """Count generations that a key asks for. Returns and raises as `submission`."""
        if caller.key_id is None or caller.rights.per_minute is None:
            return None
        return await self._ledger.run(ledger_access.pace(caller.key_id, caller.rights.per_minute, count))

    async def give_back(self, caller: access.Caller, count: int) -> None:
        """Generations that were counted came to nothing, or were counted before."""
        with contextlib.suppress(errors.StoreUnavailableError):
            await self.generations(caller, -count)

    async def bytes(self, caller: access.Caller, sent: int) -> None:
        """Count pictures that a key sends. Raises as `submission`."""
        if caller.key_id is not None and caller.rights.mb_per_minute is not None and sent:
            await self.key_bytes(caller.key_id, caller.rights.mb_per_minute, sent)

    async def key_bytes(self, key_id: str, mb_per_minute: int, sent: int) -> None:
        """The same, of a key that is known by its id."""
        await self._ledger.run(ledger_access.pace_bytes(key_id, mb_per_minute, sent))


def sent_bytes(submission: submissions.Submission) -> int:
    """Bytes of the pictures that came with a submission."""
    return sum(len(one.data) for one in submission.edit.pictures if isinstance(one, edits.SentPicture))
