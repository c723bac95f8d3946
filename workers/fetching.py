"""Fetches a caller's picture from its URL.

Redirects pass the same gate as the first address. Neither the remote's words nor the exact fault are passed on: an error must
not tell a caller what answers inside our network.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urljoin

from storage import pictures
from storage.contracts import errors
from storage.gate import RefusedError
from storage.outside import Outside, TooLongError, UnansweredError

REDIRECTS = 3
HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity"}


class Fetcher:
    """Fetches pictures. Safe to use from several threads."""

    def __init__(self, *, limit_s: float, allowed: Iterable[str] = (), authority: Path | None = None) -> None:
        """`allowed` are `host:port` pairs that may be private; `authority` has certificate authorities beside the system's."""
        self._outside = Outside(limit_s=limit_s, allowed=allowed, authority=authority)

    def fetch(self, url: str, field: str = "input_image") -> bytes:
        """The bytes behind a URL. Raises `errors.InputUnreachableError` naming `field`, with a coarse reason."""
        deadline = time.monotonic() + self._outside.limit_s
        try:
            for _ in range(REDIRECTS + 1):
                answer = self._outside.exchange(
                    "GET", url, headers=HEADERS, max_bytes=pictures.MAX_BYTES, deadline=deadline
                )
                if answer.status == 200:
                    return answer.body
                if answer.status not in (301, 302, 303, 307, 308):
                    raise errors.InputUnreachableError(
                        f"{field}: the server answered {answer.status} for url", field=field
                    )
                url = urljoin(url, answer.location or "")
        except RefusedError:
            raise errors.InputUnreachableError(f"{field}: this address may not be fetched", field=field) from None
        except TooLongError:
            limit = pictures.MAX_BYTES // 2**20
            raise errors.InputUnreachableError(f"{field}: the picture has more than {limit} MiB", field=field) from None
        except (UnansweredError, ValueError) as exc:
            reason = str(exc) if isinstance(exc, UnansweredError) else "the URL could not be fetched"
            raise errors.InputUnreachableError(f"{field}: {reason}", field=field) from None
        raise errors.InputUnreachableError(f"{field}: more than {REDIRECTS} redirects", field=field)

    def close(self) -> None:
        """Close connections."""
        self._outside.close()
