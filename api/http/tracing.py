"""A span for each request, below its caller's where that sends `traceparent`."""

from opentelemetry.trace import SpanKind
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from storage import logs, traces

TRACE_ID = "X-Trace-Id"

UNTRACED = ("/health/", "/v1/health/", "/v1/metrics")
"""What is asked every few seconds by machines."""


class Traced:
    """Records requests, and tells their trace's id in the answer and in log lines."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer within a span. That of an event stream ends when the stream begins."""
        if scope["type"] != "http" or scope["path"].startswith(UNTRACED):
            await self._app(scope, receive, send)
            return
        parent = Headers(scope=scope).get("traceparent", "")
        span = traces.begin(scope["method"], parent, kind=SpanKind.SERVER)
        ids = traces.ids(span)

        def end() -> None:
            # What the router found, which is no path: those hold ids, and queries may hold tokens.
            route = getattr(scope.get("route"), "path", "")
            span.update_name(f"{scope['method']} {route}".strip())
            span.set_attributes({"http.request.method": scope["method"], "http.route": route})
            span.end()

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= 500:
                    traces.fail(span, str(message["status"]))
                headers = MutableHeaders(scope=message)
                if "trace_id" in ids:
                    headers[TRACE_ID] = ids["trace_id"]
                if headers.get("content-type", "").startswith("text/event-stream"):
                    end()
            await send(message)

        with traces.within(span), logs.about(**ids):
            try:
                await self._app(scope, receive, answered)
            finally:
                if span.is_recording():
                    end()
