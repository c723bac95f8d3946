"""API keys made at run time, what was done to them and by whom, and how often a key may submit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from storage.contracts import access, errors, submissions
from storage.ledger.call import Call, table_of


def issue(key: access.ApiKey, *, by: str) -> Call[int]:
    """Remember a new key; `by` is the id of the key that made it, or who else did."""
    return Call(
        script="key_issue", arguments=(key.id, key.tenant, key.model_dump_json(exclude_defaults=True), by), decode=int
    )


def find(id_: str, *, is_used: bool = False, digest: str | None = None) -> Call[access.ApiKey | None]:
    """A key by its id; None where there is none, any more.

    With `is_used` somebody uses it, which is noted: where a `digest` is given, unless it is another's, for an id is no secret.
    """
    return Call(
        script="key_find",
        arguments=(id_, "used" if is_used else "", digest or ""),
        decode=lambda reply: _key(reply) if reply else None,
    )


def keys_of(tenant: str | None = None) -> Call[tuple[access.ApiKey, ...]]:
    """A tenant's keys, or everybody's, the oldest first."""

    def decode(reply: list[Any]) -> tuple[access.ApiKey, ...]:
        return tuple(sorted(map(_key, reply), key=lambda key: key.created_ms))

    return Call(script="key_list", arguments=(tenant or "",), decode=decode)


NONE = "There is no such API key"


def revoke(id_: str, *, by: str) -> Call[access.ApiKey]:
    """End a key. Raises `errors.NotFoundError` when decoded."""

    def decode(reply: Sequence[str] | None) -> access.ApiKey:
        if not reply:
            raise errors.NotFoundError(NONE)
        return _key(reply)

    return Call(script="key_revoke", arguments=(id_, by, 0), decode=decode)


def rotate(id_: str, key: access.ApiKey, *, by: str, after_s: float) -> Call[None]:
    """Put a key in the place of another, which ends `after_s`; never later than it would.

    Raises `errors.NotFoundError` when decoded.
    """

    def decode(reply: int) -> None:
        if not reply:
            raise errors.NotFoundError(NONE)

    return Call(
        script="key_rotate",
        arguments=(id_, by, int(after_s * 1000), key.id, key.model_dump_json(exclude_defaults=True)),
        decode=decode,
    )


def rotation(before: access.ApiKey | None, *, now_ms: int) -> tuple[access.ApiKey, str]:
    """What is to take a key's place, and the new key itself. Raises `errors.NotFoundError` where there is none."""
    if before is None:
        raise errors.NotFoundError(NONE)
    return access.rotated(before, now_ms=now_ms)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What was done to a key, by whom and when (milliseconds since 1970)."""

    at_ms: int
    by: str
    action: Literal["issued", "revoked"]
    key_id: str
    tenant: str


def audit(limit: int = 1000) -> Call[tuple[Entry, ...]]:
    """What was done to keys, the latest first."""

    def decode(reply: list[Any]) -> tuple[Entry, ...]:
        entries = [(int(id_.partition("-")[0]), table_of(fields)) for id_, fields in reply]
        return tuple(
            Entry(at_ms=at, by=one["by"], action=one["action"], key_id=one["key"], tenant=one["tenant"])  # type: ignore[arg-type]
            for at, one in entries
        )

    return Call(script="key_audit", arguments=(limit,), decode=decode)


AT_ONCE_MS = 6000
"""A tenth of a minute's generations may come at once, and a whole minute's bytes: pictures are large."""
BYTES_AT_ONCE_MS = 60_000


def pace(key_id: str, per_minute: int, generations: int) -> Call[access.Pace]:
    """Count generations that a key asks for. Raises `errors.TooManyRequestsError` when decoded, where they come too soon."""
    message = f"This API key may ask for {per_minute} generation{'' if per_minute == 1 else 's'} in a minute"

    def decode(reply: Sequence[int]) -> access.Pace:
        wait_ms, left, full_ms = reply
        if wait_ms > 0:
            rate = ("generations", per_minute, full_ms / 1000)
            raise errors.TooManyRequestsError(message, retry_after=wait_ms / 1000, rate=rate)
        return access.Pace(per_minute=per_minute, left=left, full_s=math.ceil(full_ms / 1000))

    return Call(
        script="key_pace",
        arguments=(key_id, per_minute, generations, AT_ONCE_MS, submissions.MAX_GENERATIONS),
        decode=decode,
    )


def pace_bytes(key_id: str, mb_per_minute: int, sent: int) -> Call[None]:
    """Count the bytes of a submission's pictures. Raises as `pace`, and `errors.PayloadTooLargeError` for what never fits."""
    message = f"This API key may send pictures of {mb_per_minute} MB in a minute"
    if sent > mb_per_minute * 1_000_000:
        raise errors.PayloadTooLargeError(message)

    def decode(reply: Sequence[int]) -> None:
        if reply[0] > 0:
            raise errors.TooManyRequestsError(message, retry_after=reply[0] / 1000)

    most = mb_per_minute * 1_000_000
    arguments = (f"{key_id}:bytes", most, sent, BYTES_AT_ONCE_MS, most)
    return Call(script="key_pace", arguments=arguments, decode=decode)


def allow_edits(token: str, edits: int, *, seconds: float) -> Call[int]:
    """Give a browser token so many edits."""
    return Call(script="token_allow", arguments=(token, edits, int(seconds * 1000)), decode=int)


def use_once(token: str) -> Call[bool]:
    """Use up a browser token that was given an edit: True the first time."""
    return Call(script="token_once", arguments=(token,), decode=bool)


def is_edit_of(token: str, id_: str) -> Call[bool]:
    """Whether a generation came of a browser token."""
    return Call(script="token_has", arguments=(token, id_), decode=bool)


def _key(reply: Sequence[str]) -> access.ApiKey:
    record = table_of(reply)
    changes: dict[str, int] = {name: int(record[name]) for name in ("expires_ms", "used_ms") if name in record}
    return access.ApiKey.model_validate_json(record["key"], extra="ignore").model_copy(update=changes)
