"""What is traced and logged of an attempt to make a generation, from its claim until it is let go."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from opentelemetry.trace import Span

from storage import logs, traces
from storage.contracts import generations

T = TypeVar("T")


def begun(claim: generations.Claim) -> Span:
    """The attempt's span, below the request it came with; its time in the queue is a span beside it."""
    now_ns = time.time_ns()
    waited = traces.begin("queue", claim.trace, since_ns=now_ns - claim.waited_ms * 1_000_000)
    waited.end(now_ns)
    about: dict[str, traces.Value] = {
        "darkroom.generation_ids": (claim.id,),
        "darkroom.model": claim.edit.model,
        "darkroom.attempt": claim.attempt,
        "darkroom.steps": claim.edit.steps,
    }
    return traces.begin("attempt", claim.trace, since_ns=now_ns, about=about)


@contextlib.contextmanager
def about(claim: generations.Claim, span: Span) -> Iterator[None]:
    """What is logged and traced in the block is of this attempt."""
    with logs.about(generation_id=claim.id, **traces.ids(span)), traces.within(span):
        yield


def traced(name: str, phase: Callable[[], T]) -> T:
    """Run a phase of the present attempt as a span."""
    with traces.step(name):
        return phase()
