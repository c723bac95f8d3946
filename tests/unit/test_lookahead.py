"""The next generation is claimed as far ahead as the pipeline is fast, and no further."""

import time
from dataclasses import dataclass

import pytest

from tests.unit.test_conveyor import Belt, Desk, belt
from workers.lookahead import Entry, Lookahead

__all__ = ["belt"]


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _lookahead(clock: Clock, look_ahead_s: float = 3.0) -> Lookahead:
    return Lookahead(look_ahead_s, most=5, patience_s=1.0, clock=clock)


def _ran(
    lookahead: Lookahead, clock: Clock, *, prepare_s: float, edit_s: float, steps: int = 4, model: str = "m"
) -> None:
    entry = lookahead.claimed(model, steps)
    clock.now += prepare_s
    entry.prepared()
    entry.begin()
    clock.now += edit_s
    entry.end(is_typical=True)


def _claimable(lookahead: Lookahead) -> bool:
    return lookahead.pause_s() is None


def _claimed_until_enough(lookahead: Lookahead) -> list[Entry]:
    entries = []
    while _claimable(lookahead):
        entries.append(lookahead.claimed("m", 4))
        assert len(entries) < 10
    return entries


def test_a_pipeline_with_nothing_to_do_is_given_something(clock: Clock) -> None:
    assert _claimable(_lookahead(clock))


def test_an_idle_pipeline_waits_less_for_a_slow_input(clock: Clock) -> None:
    lookahead = Lookahead(3.0, most=5, patience_s=1.0, idle_patience_s=0.2, clock=clock)
    slow = lookahead.claimed("m", 4)
    assert not _claimable(lookahead)
    clock.now += 0.25
    assert _claimable(lookahead)
    running = lookahead.claimed("m", 4)
    running.prepared()
    running.begin()
    assert not _claimable(lookahead), "a busy one waits as long as inputs take"
    running.end()
    assert _claimable(lookahead)
    slow.end()


def test_what_is_expected_to_be_late_is_not_waited_for(clock: Clock) -> None:
    lookahead = _lookahead(clock)
    late = lookahead.claimed("m", 4, is_slow=True)
    assert _claimable(lookahead)
    late.prepared()
    assert not _claimable(lookahead), "it came, and is what the pipeline does next"


@pytest.mark.parametrize(
    ("prepare_s", "edit_s", "ahead"), [(0.1, 10.0, 0), (0.8, 0.5, 2), (0.3, 0.5, 1), (0.9, 0.1, 5), (0.0, 0.5, 1)]
)
def test_as_many_are_prepared_ahead_as_the_pipeline_edits_while_one_is_prepared(
    clock: Clock, prepare_s: float, edit_s: float, ahead: int
) -> None:
    lookahead = _lookahead(clock)
    _ran(lookahead, clock, prepare_s=prepare_s, edit_s=edit_s)
    running = lookahead.claimed("m", 4)
    running.prepared()
    running.begin()
    assert len(_claimed_until_enough(lookahead)) == ahead


def test_no_more_work_is_kept_than_seconds_may_be_kept_from_others(clock: Clock) -> None:
    lookahead = _lookahead(clock, look_ahead_s=1.0)
    _ran(lookahead, clock, prepare_s=0.95, edit_s=0.4)
    running = lookahead.claimed("m", 4)
    running.prepared()
    running.begin()
    # 0.4 s are left of the running one, and of 0.6 s two more make more than a second together with it.
    assert len(_claimed_until_enough(lookahead)) == 2
    clock.now += 0.2
    assert not _claimable(lookahead)


def test_a_slow_edit_is_followed_only_in_its_last_seconds(clock: Clock) -> None:
    lookahead = _lookahead(clock)
    running = lookahead.claimed("m", 10)
    running.prepared()
    running.begin()
    for step in range(1, 7):
        clock.now += 1
        running.advance(step)
        assert not _claimable(lookahead), f"{10 - step} s to go"
    clock.now += 1
    running.advance(7)
    (ahead,) = _claimed_until_enough(lookahead)
    clock.now += 0.5
    ahead.prepared()
    clock.now += 1.5
    running.advance(9)
    assert not _claimable(lookahead), "one is enough, to the end"


def test_a_model_never_seen_is_waited_for_until_its_first_step(clock: Clock) -> None:
    lookahead = _lookahead(clock)
    _ran(lookahead, clock, prepare_s=0.1, edit_s=0.5, model="quick")
    running = lookahead.claimed("slow", 10)
    running.prepared()
    running.begin()
    clock.now += 1
    assert not _claimable(lookahead), "a quick model says nothing of it"


def test_an_input_that_is_late_is_not_waited_for(clock: Clock) -> None:
    lookahead = _lookahead(clock)
    lookahead.claimed("m", 4)
    assert lookahead.pause_s() == pytest.approx(1.0)
    clock.now += 1.1
    assert _claimable(lookahead)


def test_one_that_is_postponed_for_a_late_input_is_not_waited_for_either(clock: Clock) -> None:
    lookahead = _lookahead(clock)
    lookahead.claimed("m", 4)
    clock.now += 1.1
    postponed = lookahead.claimed("other", 4)
    postponed.set_postponed(True)
    postponed.prepared()
    assert lookahead.pause_s() == pytest.approx(1.0)
    clock.now += 1.1
    assert _claimable(lookahead)
    postponed.set_postponed(False)
    assert not _claimable(lookahead), "it is next"


def test_what_failed_or_loaded_a_model_is_no_measure(clock: Clock) -> None:
    lookahead = _lookahead(clock)
    _ran(lookahead, clock, prepare_s=0.8, edit_s=0.5)
    failed = lookahead.claimed("m", 4)
    failed.prepared()
    failed.begin()
    clock.now += 60
    failed.end()
    running = lookahead.claimed("m", 4)
    running.prepared()
    running.begin()
    assert len(_claimed_until_enough(lookahead)) >= 1


def test_the_pipelines_idle_time_counts_only_while_somebody_waited(clock: Clock) -> None:
    lookahead = _lookahead(clock)
    _ran(lookahead, clock, prepare_s=0.1, edit_s=0.5)
    clock.now += 7
    entry = lookahead.claimed("m", 4, waited_s=0.25)
    clock.now += 0.05
    entry.prepared()
    entry.begin()
    assert lookahead.idle_ms == (pytest.approx(300),)


def test_a_quick_pipeline_is_hardly_idle_where_preparing_takes_longer_than_an_edit(belt: Belt) -> None:
    """Preparing takes 0.16 s and an edit 0.08 s: with one prepared ahead the pipeline idles half of the time."""
    desk = Desk(waiting=24, steps=4, step_s=0.02, prepare=lambda lease: time.sleep(0.16))
    desk.finish_gate.set()
    conveyor = belt(desk, 3)
    conveyor.serve()
    conveyor.close()
    # Each edit takes at least 80 ms; the first few are spent learning.
    idle = conveyor.idle_ms[6:]
    assert len(idle) >= 15
    assert sum(idle) / (sum(idle) + 80 * len(idle)) < 0.25
