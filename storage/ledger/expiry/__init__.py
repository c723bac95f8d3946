"""When stored objects are deleted."""

from storage.ledger.call import Call


def keep(prefix: str, *, seconds: float) -> Call[int]:
    """Have the objects below a prefix deleted after a while."""
    return Call(script="keep", arguments=(prefix, int(seconds * 1000)), decode=int)


def expired(passed_over: int = 0) -> Call[str | None]:
    """An object prefix that is to be deleted now, after so many others."""
    return Call(script="expired", arguments=(passed_over,), decode=lambda reply: reply[0] if reply else None)


def forget(prefix: str) -> Call[int]:
    """This prefix was deleted; it stays listed should it have been given more time meanwhile."""
    return Call(script="forget", arguments=(prefix,), decode=int)
