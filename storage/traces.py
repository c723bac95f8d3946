"""Traces by OpenTelemetry: where the time of one edit goes, from its request over all processes to its webhook.

Without `DARKROOM_TRACES_ENDPOINT` nothing is recorded and nothing is imported for it. Spans carry ids, routes, statuses and error
codes; no prompt, key or URL. From process to process a trace goes in the generation's record, as W3C's `traceparent`.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from storage.contracts import errors
from storage.settings import StoreSettings

Value = str | int | float | bool | tuple[str, ...]

EXPORT_LIMIT_S = 5
"""Seconds in which a collector takes what it is sent; otherwise that is dropped."""

FLUSH_MS = 1000

_PROPAGATOR = TraceContextTextMapPropagator()
_HEADER = "traceparent"


@contextlib.contextmanager
def told(settings: StoreSettings, service: str) -> Iterator[None]:
    """While the block runs, spans of this process are sent, from a thread of their own, to where the settings say."""
    if settings.traces_endpoint is None:
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    provider = TracerProvider(
        resource=Resource.create({"service.name": service}), sampler=ParentBasedTraceIdRatio(settings.traces_sampled)
    )
    exporter = OTLPSpanExporter(endpoint=settings.traces_endpoint, timeout=EXPORT_LIMIT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


def _tracer() -> trace.Tracer:
    return trace.get_tracer("darkroom")


def begin(
    name: str,
    parent: str = "",
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    since_ns: int | None = None,
    about: Mapping[str, Value] | None = None,
) -> Span:
    """A span, below the one that `parent` names as `traceparent` does; it is to be ended. Times are of `time.time_ns`."""
    above = _PROPAGATOR.extract({_HEADER: parent}) if parent else context.Context()
    return _tracer().start_span(name, above, kind=kind, start_time=since_ns, attributes=dict(about or {}))


@contextlib.contextmanager
def within(span: Span) -> Iterator[None]:
    """What is begun in the block, in this thread or task, is below the span."""
    with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        yield


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """A span below the present one for a block; of what goes wrong in it the code is noted."""
    with _tracer().start_as_current_span(name, record_exception=False, set_status_on_exception=False) as span:
        try:
            yield
        except errors.DarkroomError as exc:
            fail(span, exc.code)
            raise
        except Exception:
            fail(span, errors.InternalError.code)
            raise


def fail(span: Span, code: str) -> None:
    """What the span is of went wrong."""
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR))


def note(**about: Value) -> None:
    """Say of the present span."""
    span = trace.get_current_span()
    for name, value in about.items():
        span.set_attribute(f"darkroom.{name}", value)


def passed(name: str, since_ns: int) -> None:
    """A span below the present one, if there is one, of what began then and is over now."""
    if trace.get_current_span().is_recording():
        _tracer().start_span(name, start_time=since_ns).end()


def unrecorded() -> contextlib.AbstractContextManager[object]:
    """Nothing in the block is of the present span."""
    return within(trace.INVALID_SPAN)


def current() -> str:
    """The present span as `traceparent` names it, with whether it is recorded; empty where there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(_HEADER, "")


def flush() -> None:
    """Send what there is, for a process that is about to end without more ado."""
    force_flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if force_flush is not None:
        force_flush(FLUSH_MS)


def headers() -> dict[str, str]:
    """What a request that is sent says of the present span."""
    return {_HEADER: parent} if (parent := current()) else {}


def ids(span: Span) -> dict[str, str]:
    """What log lines and answers say of a span: its trace's id, if it is recorded."""
    return {"trace_id": f"{span.get_span_context().trace_id:032x}"} if span.is_recording() else {}


class Laps:
    """Spans one after the other below the present one, each from the end of the one before."""

    def __init__(self) -> None:
        self._since_ns = 0

    def start(self) -> None:
        """The first one begins."""
        self._since_ns = time.time_ns()

    def ended(self, name: str) -> None:
        """One is over, and the next begins."""
        passed(name, self._since_ns)
        self.start()
