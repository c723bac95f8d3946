"""What was loaded to stay is left out of collections, until something of it is let go."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from storage import garbage


class Part:
    """Refers to itself in a circle, as parts of pipelines do."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def nothing_is_left_out() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_what_was_there_is_not_looked_at_again() -> None:
    assert gc.get_freeze_count() == 0
    garbage.settle()
    assert gc.get_freeze_count() > 100_000 > len(gc.get_objects())


def test_what_is_garbage_by_then_is_not_kept() -> None:
    part = weakref.ref(Part())
    garbage.settle()
    assert part() is None


def test_what_stayed_and_is_let_go_is_collected() -> None:
    one = Part()
    part = weakref.ref(one)
    garbage.settle()
    del one
    gc.collect()
    assert part() is not None, "left out"
    garbage.let_go()
    assert part() is None
    assert gc.get_freeze_count() > 100_000, "the others are left out again"


def test_nothing_is_collected_while_paused_whatever_happens_there() -> None:
    enabled = []

    def fail() -> None:
        with garbage.paused():
            enabled.append(gc.isenabled())
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert (enabled, gc.isenabled()) == ([False], True)
