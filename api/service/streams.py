"""How many event streams are open, by tenant."""

import contextlib
from collections import Counter
from collections.abc import Iterator

from prometheus_client import Gauge

from storage.contracts import errors


class OpenStreams:
    """Streams open in this process; a tenant may have `most`, all together `in_all`."""

    def __init__(self, most: int, in_all: int, *, gauge: Gauge | None = None) -> None:
        """`gauge` is told how many there are."""
        self._gauge = gauge
        self._most = most
        self._in_all = in_all
        self._open: Counter[str] = Counter()

    def check(self, tenant: str) -> None:
        """Raises `errors.TooManyActiveError` when a tenant may not open another."""
        if self._open[tenant] >= self._most:
            raise errors.TooManyActiveError(f"At most {self._most} event streams may be open", retry_after=5.0)
        if self._open.total() >= self._in_all:
            raise errors.TooManyActiveError("This process has as many event streams as it may have", retry_after=5.0)

    @contextlib.contextmanager
    def counted(self, tenant: str) -> Iterator[None]:
        """While it is open."""
        self._count(tenant, 1)
        try:
            yield
        finally:
            self._count(tenant, -1)

    def _count(self, tenant: str, more: int) -> None:
        self._open[tenant] += more
        if not self._open[tenant]:
            del self._open[tenant]
        if self._gauge is not None:
            self._gauge.set(self._open.total())
