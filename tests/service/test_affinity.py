"""A worker that holds one model at a time does not change it for every edit, and nobody waits for that for long."""

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra import embedded
from tests.conftest import TENANTS, Tenant, running_stack

MODELS = '["large", "larger"]'


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[float], embedded.Stack]]:
    with contextlib.ExitStack() as cleanup:

        def start(affinity_s: float) -> embedded.Stack:
            settings = {"DARKROOM_MODELS": MODELS, "DARKROOM_AFFINITY_S": str(affinity_s)}
            return cleanup.enter_context(running_stack(tmp_path, **settings))

        yield start


def _loads(stack: embedded.Stack) -> int:
    return (stack.options.data_dir / "logs" / "worker-1.log").read_text().count(" loaded in ")


def _alternating(stack: embedded.Stack, image: str, count: int) -> list[dict[str, object]]:
    alice = Tenant(stack.url, "alice", TENANTS["alice"])
    models = itertools.islice(itertools.cycle(["large", "larger"]), count)
    worker = stack.children["worker-1"].pid
    # However slowly they arrive: all are there when it looks.
    os.kill(worker, signal.SIGSTOP)
    try:
        ids = [alice.enqueue(image, model=model) for model in models]
    finally:
        os.kill(worker, signal.SIGCONT)
    return [alice.finished(id_) for id_ in ids]


def test_models_asked_for_in_turn_are_loaded_far_less_often_than_in_turn(
    started: Callable[[float], embedded.Stack], tiny: str
) -> None:
    stack = started(30)
    found = _alternating(stack, tiny, 40)
    assert {one["status"] for one in found} == {"succeeded"}
    assert _loads(stack) <= 4, "at most a tenth of the loads of first come, first served"


def test_an_edit_that_has_waited_long_enough_is_served_even_if_that_means_a_load(
    started: Callable[[float], embedded.Stack], tiny: str
) -> None:
    stack = started(0)
    found = _alternating(stack, tiny, 8)
    assert {one["status"] for one in found} == {"succeeded"}
    # With no patience at all the oldest goes first, which here is a load for nearly every edit.
    assert _loads(stack) >= 6
