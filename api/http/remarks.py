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

HEADERS = (IGNORED, MODEL, VERSION)

_KEY = "darkroom.remarks"


def remark(request: Request, header: str, values: Sequence[str]) -> None:
    """Have the answer to a request carry a header of these values; of none it carries none."""
    if values:
        request.scope.setdefault(_KEY, []).append(
            (header.lower().encode(), ", ".join(values).encode("ascii", "replace"))
        )


def of(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What was remarked on, as raw headers."""
    remarks: list[tuple[bytes, bytes]] = scope.get(_KEY, [])
    return remarks
