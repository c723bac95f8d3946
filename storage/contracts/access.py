"""Who may do what: API keys, their rights, and the caller that a key stands for."""

import hashlib
import re
import secrets
import zlib
from typing import Annotated, Literal

from pydantic import Field

from storage.contracts import errors
from storage.contracts.values import Frozen

Scope = Literal["submit", "read", "models", "admin"]
"""`read`: every GET of what is the tenant's; `submit`: whatever else is done with that; `models`: start and stop models; `admin`:
make, list and end keys of any tenant."""

SCOPES: tuple[Scope, ...] = ("submit", "read", "models", "admin")
USUAL_SCOPES: tuple[Scope, ...] = ("submit", "read")

TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of tenants: they are parts of keys in both stores."""

PREFIX = "dk_live_"
"""By which a key is known when it turns up where it should not: a repository, a log."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH, _SECRET_LENGTH, _CHECK_LENGTH = 10, 32, 6
TOKEN = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_ID_LENGTH}}}_[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECK_LENGTH}}}")
"""A whole key: id, then 190 random bits and a checksum of what stands before it."""


Priority = Literal["high", "normal", "low"]


LONGEST_OVERLAP_S = 30 * 24 * 3600
"""How long a key may go on beside the one that takes its place."""


class Rights(Frozen):
    """What a key allows. Empty `models` and `gpu_types` are all that the service has."""

    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)] = USUAL_SCOPES
    models: tuple[str, ...] = ()
    gpu_types: tuple[str, ...] = ()
    unfiltered: bool = False
    """Whether filters may be switched off for a request."""
    no_store: bool = False
    """Whether everything about a generation is erased ten minutes after its end."""
    retention_days: Annotated[float, Field(gt=0, le=7)] | None = None
    """After which everything about a generation is erased. None: its picture goes after seven, its record after eight."""
    budget_usd: Annotated[float, Field(ge=0)] | None = None
    """Nothing is accepted once the tenant's month could come to more, whatever other keys it has."""
    priorities: tuple[Priority, ...] = ()
    """Which its submissions may have; empty is all. What names none gets the nearest to normal of these."""
    per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Submissions in a minute at the most, spread evenly, with a tenth of them at once."""
    mb_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Megabytes (10⁶) of pictures in a minute at the most, as they are sent along."""


class Pace(Frozen):
    """How a key stands against its rate: of `per_minute` generations `left` may come now, and all at once in `full_s` seconds."""

    per_minute: int
    left: int
    full_s: int


class ApiKey(Frozen):
    """A key as it is remembered: without its secret. Times in milliseconds since 1970."""

    id: str
    tenant: str
    label: str = ""
    rights: Rights
    digest: str
    """SHA-256 of the whole key, in hexadecimal: its secret has 190 random bits, so that nothing slower is needed."""
    created_ms: int
    expires_ms: int | None = None
    lifetime_ms: int | None = None
    """What it was made for; a key that is revoked expires earlier."""
    used_ms: int | None = None
    """To the minute."""

    def is_valid(self, at_ms: int) -> bool:
        """Whether it has not expired."""
        return self.expires_ms is None or at_ms < self.expires_ms


class KeyRequest(Rights):
    """A key that is asked for. `expires_in_s` None: it lives until it is revoked."""

    tenant: Annotated[str, Field(pattern=rf"^{TENANT.pattern}$")]
    label: Annotated[str, Field(max_length=100)] = ""
    expires_in_s: Annotated[float, Field(gt=0, le=100 * 365 * 86400)] | None = None

    @property
    def rights(self) -> Rights:
        """What it is to allow."""
        return Rights(**self.model_dump(include=set(Rights.model_fields)))


class Caller(Frozen):
    """Who is asking, and what they may do.

    `name` is the key's, `key_id` None that of a key from the settings; `token_id` of a browser token that was made with it.
    """

    tenant: str
    name: str
    key_id: str | None = None
    token_id: str | None = None
    until: int | None = None
    """Seconds since 1970 at which a browser token ends."""
    rights: Rights

    @property
    def reads(self) -> bool:
        """Whether it may read what its tenant has: else it is told ids and states alone."""
        return "read" in self.rights.scopes

    def check(self, scope: Scope) -> None:
        """Raises `errors.ForbiddenError`."""
        if scope not in self.rights.scopes:
            raise errors.ForbiddenError(f"This API key may not do that: it lacks the scope {scope}")


def issued(request: KeyRequest, *, now_ms: int) -> tuple[ApiKey, str]:
    """A new key as it is remembered, and the key itself, which is shown once."""
    expires_ms = None if request.expires_in_s is None else now_ms + round(request.expires_in_s * 1000)
    return _issued(request.tenant, request.label, request.rights, now_ms, expires_ms)


def rotated(key: ApiKey, *, now_ms: int) -> tuple[ApiKey, str]:
    """Another key that allows the same, for as long from now as the first did."""
    expires_ms = None if key.lifetime_ms is None else now_ms + key.lifetime_ms
    return _issued(key.tenant, key.label, key.rights, now_ms, expires_ms)


def _issued(tenant: str, label: str, rights: Rights, now_ms: int, expires_ms: int | None) -> tuple[ApiKey, str]:
    id_ = _random(_ID_LENGTH)
    unchecked = f"{PREFIX}{id_}_{_random(_SECRET_LENGTH)}"
    token = unchecked + _checksum(unchecked)
    lifetime_ms = None if expires_ms is None else expires_ms - now_ms
    key = ApiKey(
        id=id_, tenant=tenant, label=label, rights=rights, digest=digest(token), created_ms=now_ms, expires_ms=expires_ms,
        lifetime_ms=lifetime_ms,
    )  # fmt: skip
    return key, token


def id_of(token: str) -> str | None:
    """The id in a well-formed key, None of anything else: no store need be asked about that."""
    if not TOKEN.fullmatch(token) or _checksum(token[:-_CHECK_LENGTH]) != token[-_CHECK_LENGTH:]:
        return None
    return token.removeprefix(PREFIX)[:_ID_LENGTH]


def digest(token: str) -> str:
    """What is remembered of a key."""
    return hashlib.sha256(token.encode()).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECK_LENGTH):
        number, place = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[place] + digits
    return digits
