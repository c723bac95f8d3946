"""Promise: no reader that comes back misses a terminal event, to whichever API process it comes back."""

import contextlib
import random
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests

from infra.children import Child
from tests.conftest import eventually
from tests.faults.conftest import Victim
from tests.sse import reading
from tests.web import free_port

COMPLETED = "media_generation_completed"


@pytest.fixture
def second_api(victim: Victim) -> Iterator[str]:
    """Another API process on the same stores."""
    port = free_port()
    first = victim.stack.children["api"]
    log_file = first.log_file.with_name("second-api.log")
    child = Child(
        "second-api", [sys.executable, "-m", "api"], {**first.environment, "DARKROOM_PORT": str(port)}, log_file
    )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{url}/health/ready", timeout=2).status_code == 200
        return False

    eventually(ready)
    yield url
    child.stop()


def test_a_reader_cut_at_random_points_sees_every_ending_once_and_in_order(
    victim: Victim, second_api: str, tiny: str
) -> None:
    doors = [victim.alice, replace(victim.alice, url=second_api)]
    ids: list[str] = []

    def submit() -> None:
        ids.extend(doors[n % 2].enqueue(tiny) for n in range(60))

    submitting = threading.Thread(target=submit)
    chance, told = random.Random(3), []
    with reading(victim.alice) as stream:
        cursor = stream.wait_for("hello")["id"]
    submitting.start()

    def everything_was_told() -> bool:
        return not submitting.is_alive() and set(ids) <= {id_ for _, id_ in told}

    while not everything_was_told():
        with reading(chance.choice(doors), f"?since={cursor}") as stream:
            wanted = chance.randrange(1, 30)
            with contextlib.suppress(AssertionError):
                eventually(lambda wanted=wanted, stream=stream: len(stream.events) >= wanted, within_s=1)
        for event in stream.events:
            cursor = event["id"]
            if event["event"] == COMPLETED:
                told.append((tuple(map(int, cursor.split("-"))), event["data"]["generation_id"]))
    submitting.join()
    ours = [(place, id_) for place, id_ in told if id_ in ids]
    assert sorted(id_ for _, id_ in ours) == sorted(ids), "each exactly once"
    assert [place for place, _ in told] == sorted(place for place, _ in told)
