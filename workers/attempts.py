"""What is traced and logged of an attempt to make a generation, from its claim until it is let go."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from opentelemetry.trace import Span

from storage import logs, traces
from storage.contracts import generations

T = TypeVar("T")

EXIT_HANGING, EXIT_GPU_FAULT = 70, 71
"""What a process ends with that hangs, or whose GPU failed."""


def begun(claim: generations.Claim) -> Span:
    """The attempt's span, below the request it came with; its time in the queue is a span beside it, or below without one."""
    now_ns = time.time_ns()
    queued_ns = now_ns - claim.waited_ms * 1_000_000
    about: dict[str, traces.Value] = {
        "darkroom.generation_ids": (claim.id,),
        "darkroom.model": claim.edit.model,
        "darkroom.attempt": claim.attempt,
        "darkroom.steps": claim.edit.steps,
    }
    attempt = traces.begin("attempt", claim.trace, since_ns=now_ns, about=about)
    if claim.trace:
        traces.begin("queue", claim.trace, since_ns=queued_ns).end(now_ns)
    else:
        with traces.within(attempt):
            traces.passed("queue", queued_ns)
    return attempt


@contextlib.contextmanager
def about(claim: generations.Claim, span: Span) -> Iterator[None]:
    """What is logged and traced in the block is of this attempt."""
    with logs.about(generation_id=claim.id, **traces.ids(span)), traces.within(span):
        yield


def traced(name: str, phase: Callable[[], T]) -> T:
    """Run a phase of the present attempt as a span."""
    with traces.step(name):
        return phase()


def end_process(code: int) -> None:
    """End this process here and now; of it no more is told than what was sent of its traces."""
    traces.flush()
    os._exit(code)
