"""When stored objects are deleted."""

from storage.ledger.call import Call


def keep(prefix: str, *, seconds: float, request: tuple[str, str] | None = None) -> Call[int]:
    """Have the objects below a prefix deleted after a while, or later where that is known already.

    `request` is the tenant and the idempotency key of the one that they belong to; if it was accepted before, nothing changes.
    """
    known = ":".join(request) if request else ""
    return Call(script="keep", arguments=(prefix, int(seconds * 1000), "", known), decode=int)


def keep_until(prefix: str, *, due_ms: int) -> Call[int]:
    """Have the objects below a prefix deleted at a time, or later where that is known already (ms since 1970)."""
    return Call(script="keep", arguments=(prefix, "", due_ms, ""), decode=int)


def expired(passed_over: int = 0) -> Call[str | None]:
    """An object prefix that is to be deleted now, after so many others."""
    return Call(script="expired", arguments=(passed_over,), decode=lambda reply: reply[0] if reply else None)


def forget(prefix: str) -> Call[int]:
    """This prefix was deleted; it stays listed should it have been given more time meanwhile."""
    return Call(script="forget", arguments=(prefix,), decode=int)
