"""When stored objects are deleted."""

from collections.abc import Sequence
from dataclasses import dataclass

from storage.contracts import submissions
from storage.ledger.call import Call

HOLD_S = 120.0
"""Longer than a call of the object store takes with all its retries."""


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """How the ledger knows that it accepted a generation before: by its request's idempotency key, or as a line of a batch."""

    request: str
    batch: str
    id: str

    @classmethod
    def of(cls, submission: submissions.Submission, tenant: str, id_: str) -> "Acceptance":
        """That of a submission's first generation."""
        return cls(request=f"{tenant}:{submission.idempotency_key or ''}", batch=submission.batch or "", id=id_)


def keep(prefixes: Sequence[str], *, seconds: float, unless: Acceptance | None = None) -> Call[bool]:
    """Have the objects below each prefix deleted after a while, or later where that is known already.

    False, and nothing changes, where what they are for was accepted before.
    """
    known = (unless.request, unless.batch, unless.id) if unless else ("", "", "")
    return Call(script="keep", arguments=(int(seconds * 1000), *known, *prefixes), decode=bool)


@dataclass(frozen=True, kw_only=True)
class Expired:
    """A prefix that nobody else deletes before `until`, taken at `taken_ms` (ms since 1970, by Redis' clock)."""

    prefix: str
    until: str
    taken_ms: int


def expired(*, hold_s: float = HOLD_S) -> Call[Expired | None]:
    """An object prefix that is to be deleted now; it is held for a while."""
    return Call(
        script="expired",
        arguments=(int(hold_s * 1000),),
        decode=lambda reply: (
            Expired(prefix=reply[0], until=reply[1], taken_ms=int(reply[1]) - int(hold_s * 1000)) if reply else None
        ),
    )


def is_held(entry: Expired) -> Call[bool]:
    """Whether it is still to be deleted: a retry may have given it more time."""
    return Call(script="is_held", arguments=(entry.prefix, entry.until), decode=bool)


def forget(entry: Expired, *, again_ms: int | None = None) -> Call[int]:
    """It was deleted; or is looked at again at `again_ms` since 1970. Nothing changes if it was given more time meanwhile."""
    return Call(
        script="forget", arguments=(entry.prefix, entry.until, "" if again_ms is None else again_ms), decode=int
    )
