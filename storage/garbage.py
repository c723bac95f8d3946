"""Pauses of Python's garbage collector.

A full collection looks at every object there is while nothing else runs: 70 ms in an API process, 290 ms in a worker that has
loaded a pipeline, nearly all of it for modules and classes that stay. What stays is left out by `settle`.
"""

import contextlib
import gc
from collections.abc import Iterator


def settle() -> None:
    """Collect what is garbage now, and never look at the rest again; called when what is to stay was loaded."""
    gc.collect()
    gc.freeze()


def let_go() -> None:
    """The same, with another look at what was to stay; called when something large of it was let go."""
    gc.unfreeze()
    settle()


def drop_frames(exc: BaseException | None) -> None:
    """Let go of what an exception, and those it came of, hold on to: the frames that they passed through, with all in them."""
    while exc is not None:
        exc.__traceback__ = None
        exc = exc.__cause__ or exc.__context__


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Collect nothing for as long as the block lasts.

    Importing thousands of modules sets off collections that find nothing: 1.2 of 7.3 s for a pipeline's.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
