"""Test calls of webhooks: few at a time, one of a tenant's, so that nobody has the service call others for them."""

import asyncio
from collections.abc import Mapping

from api.webhooks.calls import Calls, Outcome
from storage.contracts import errors

AT_ONCE = 4


class Pings:
    """Calls that a tenant waits for."""

    def __init__(self, calls: Calls) -> None:
        """`calls` are for these alone: deliveries do not wait behind them."""
        self._calls = calls
        self._waiting: set[str] = set()

    async def send(self, tenant: str, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Call a URL. Raises `errors.TooManyRequestsError` while another call of the tenant's, or too many, are under way."""
        if tenant in self._waiting or len(self._waiting) >= AT_ONCE:
            raise errors.TooManyRequestsError("Another test call is under way", retry_after=self._calls.limit_s)
        self._waiting.add(tenant)
        calling = asyncio.ensure_future(self._calls.post(url, body, headers))
        # Who hangs up waits no more, but the call has its thread until it ends.
        calling.add_done_callback(lambda _: self._waiting.discard(tenant))
        return await asyncio.shield(calling)
