"""What an answer says in headers, beside what its dialect's body says."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.types import Scope

IGNORED = "Darkroom-Ignored"
"""Names of fields of the request that changed nothing."""

MODEL = "Darkroom-Model"
"""The model that was used, where the request named another."""

VERSION = "Darkroom-Version"
"""The version that was used, where the request named one that is not served."""

RATE, RATE_POLICY = "RateLimit", "RateLimit-Policy"
"""How a key stands against its rate (draft-ietf-httpapi-ratelimit-headers)."""

HEADERS = (IGNORED, MODEL, VERSION, RATE, RATE_POLICY)

_KEY = "darkroom.remarks"


def remark(request: Request, header: str, values: Sequence[str]) -> None:
    """Have the answer to a request carry a header of these values; of none it carries none."""
    if values:
        request.scope.setdefault(_KEY, []).append(
            (header.lower().encode(), ", ".join(values).encode("ascii", "replace"))
        )


def rate(per_minute: int, left: int, seconds: int, *, what: str = "generations") -> dict[str, str]:
    """The headers of a rate: so many may come now, and all that may come at once in so many seconds."""
    return {RATE_POLICY: f'"{what}";q={per_minute};w=60', RATE: f'"{what}";r={left};t={seconds}'}


def of(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What was remarked on, as raw headers."""
    remarks: list[tuple[bytes, bytes]] = scope.get(_KEY, [])
    return remarks
