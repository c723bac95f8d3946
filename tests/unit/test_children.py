"""Promise: what dies is started again, however often it dies, and what keeps dying gets a rest in between."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.children import QUICK_DEATHS, REST_S, Child
from tests.conftest import eventually


@pytest.fixture
def dying(tmp_path: Path) -> Iterator[Child]:
    child = Child("dying", ["false"], {}, tmp_path / "dying.log")
    yield child
    child.stop()


def _restarted(child: Child) -> bool:
    before = child.pid
    child.restart_if_dead()
    return child.pid != before


def test_the_first_deaths_are_mended_at_once_and_later_ones_after_a_rest_for_ever(dying: Child) -> None:
    for _ in range(QUICK_DEATHS):
        began = time.monotonic()
        eventually(lambda: _restarted(dying))
        assert time.monotonic() - began < REST_S
    for _ in range(2):
        began = time.monotonic()
        eventually(lambda: _restarted(dying))
        assert time.monotonic() - began > REST_S * 0.5


def test_how_it_ended_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for command, why in (("kill -9 $$", "SIGKILL"), ("exit 3", "exit code 3")):
        child = Child("worker-2", ["sh", "-c", command], {}, tmp_path / "worker-2.log")
        eventually(lambda child=child: _restarted(child))  # type: ignore[misc]
        child.stop()
        assert f"worker-2 ended ({why}) and is started again; see {tmp_path}/worker-2.log" in caplog.messages


def test_what_lives_is_left_alone(tmp_path: Path) -> None:
    child = Child("living", ["sleep", "60"], {}, tmp_path / "living.log")
    try:
        assert not _restarted(child)
    finally:
        child.stop()


def test_its_last_words_are_not_those_of_an_earlier_run(tmp_path: Path) -> None:
    log = tmp_path / "failing.log"
    log.write_text("what was wrong the last time\n")
    child = Child("failing", ["sh", "-c", "echo what is wrong now; false"], {}, log)
    eventually(lambda: not child.alive)
    assert child.last_words() == "what is wrong now\n"
