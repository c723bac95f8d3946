"""Counts every answer, by route and status, and how long it took."""

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.hangups import HUNG_UP
from api.metrics import UNKNOWN, ApiMetrics


class Metered:
    """Notes what the application answers."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then count."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, is_stream, began = HUNG_UP, False, time.perf_counter()

        async def noted(message: Message) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                status = message["status"]
                is_stream = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            # What the router found, which is no path: that is the caller's.
            route = scope.get("route")
            self._metrics.answered(
                dialect=next(iter(getattr(route, "tags", ())), "") or UNKNOWN,
                route=getattr(route, "path", UNKNOWN),
                method=scope["method"] if route is not None else UNKNOWN,
                status=status,
                seconds=None if is_stream else time.perf_counter() - began,
            )
