"""Promise: nobody is left waiting. What waits, runs or hangs too long ends, and says why."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from tests.conftest import eventually
from tests.faults.conftest import Victim
from tests.faults.test_recovery import running_on, under_way
from tests.sse import reading


def test_an_edit_ends_at_its_limit_and_is_not_tried_again(victim: Victim, tiny: str) -> None:
    found = victim.alice.finished(victim.alice.enqueue(tiny, model="slow", execution_timeout=1, num_inference_steps=40))
    assert (found["status"], found["error_code"], found["attempts"]) == ("failed", "timed_out", 1)
    assert found["error_message"] == "The edit took longer than 1 seconds"
    assert 1000 <= found["execution_ms"] < 5000


def test_what_waits_too_long_fails_with_an_event(victim: Victim, tiny: str) -> None:
    with victim.no_worker_moves(), reading(victim.alice) as stream:
        id_ = victim.alice.enqueue(tiny, queue_ttl=1)
        event = stream.wait_for("media_generation_completed", id_)
        assert event["data"]["error_code"] == "expired_in_queue"
    assert victim.alice.finished(id_)["error_code"] == "expired_in_queue"


def test_a_limit_beyond_the_operators_is_refused(victim: Victim, tiny: str) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny, "execution_timeout": 601}
    error = victim.alice.post("/api/ai/queue", body).json()["error"]
    assert error["message"] == "execution_timeout must be a number of seconds between 1 and 600; got 601"


def test_a_pipeline_that_hangs_past_its_limit_is_ended_with_its_process(victim: Victim, tiny: str) -> None:
    before = {victim.pid("worker-1"), victim.pid("worker-2")}
    found = victim.alice.finished(victim.alice.enqueue(tiny, model="hanging", execution_timeout=1))
    # The stall limit of these workers is shorter than the time granted beyond the edit's own: it counts as a lost worker.
    assert (found["status"], found["error_code"], found["attempts"]) == ("failed", "worker_lost", 2)
    eventually(lambda: before != {victim.pid("worker-1"), victim.pid("worker-2")})
    assert victim.alice.finished(victim.alice.enqueue(tiny))["status"] == "succeeded"


def test_a_load_that_hangs_is_ended_with_its_process(victim: Victim, tiny: str) -> None:
    found = victim.alice.finished(victim.alice.enqueue(tiny, model="heavy"))
    assert (found["status"], found["error_code"], found["attempts"]) == ("failed", "worker_lost", 2)
    assert "while loading" in found["error_message"]


def _admin(victim: Victim, *arguments: str) -> str:
    environment = {**os.environ, "DARKROOM_DATA_DIR": str(victim.stack.options.data_dir)}
    command = [str(Path(sys.executable).parent / "darkroom-admin"), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_a_payload_that_kills_its_worker_twice_is_parked_for_an_operator(victim: Victim, tiny: str) -> None:
    id_ = victim.alice.enqueue(tiny, model="lethal", prompt="a secret prompt")
    found = victim.alice.finished(id_)
    assert (found["status"], found["error_code"], found["attempts"]) == ("failed", "worker_lost", 2)
    assert "the last time while" in found["error_message"]
    listed = _admin(victim, "parked")
    assert id_ in listed
    shown = json.loads(_admin(victim, "show", id_))
    assert (shown["tenant"], shown["losses"], shown["error_code"]) == ("alice", "2", "worker_lost")
    assert "a secret prompt" not in listed + json.dumps(shown)
    assert "queued again" in _admin(victim, "retry", id_)
    assert victim.alice.finished(id_)["error_code"] == "worker_lost"
    assert "taken off the list" in _admin(victim, "drop", id_)
    assert id_ not in _admin(victim, "parked")


def test_a_worker_asked_twice_hands_its_work_back_at_once(victim: Victim, tiny: str) -> None:
    id_ = victim.alice.enqueue(tiny, model="slow")
    under_way(victim, id_)
    worker = running_on(victim, id_)
    said = victim.listening(worker)
    old = victim.signal(worker, signal.SIGTERM)
    eventually(lambda: "stopping: finishing" in said())
    os.kill(old, signal.SIGTERM)
    found = victim.alice.finished(id_)
    assert (found["status"], found["attempts"]) == ("succeeded", 1), "handing back is not blamed"
    assert f"{id_} handed back while editing" in said()


def test_a_stopping_api_says_goodbye_with_a_cursor_to_resume_from(victim: Victim, tiny: str) -> None:
    with reading(victim.alice) as stream:
        id_ = victim.alice.enqueue(tiny, model="slow")
        stream.wait_for("media_generation_started", id_)
        stopped = victim.signal("api", signal.SIGTERM)
        cursor = stream.wait_for("goodbye")["data"]["cursor"]
    eventually(lambda: victim.is_back(stopped))
    with reading(victim.alice, f"?since={cursor}") as stream:
        stream.wait_for("media_generation_completed", id_)


def test_a_stopping_api_still_answers_the_request_it_is_reading(victim: Victim, tiny: str) -> None:
    body = json.dumps({"model": "quick", "prompt": "x", "input_image": tiny}).encode()
    address = urlsplit(victim.stack.url)
    head = [
        "POST /api/ai/queue HTTP/1.1",
        f"Host: {address.netloc}",
        f"Authorization: Bearer {victim.alice.key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body[:-1])
        with reading(victim.alice) as stream:
            stopped = victim.signal("api", signal.SIGTERM)
            stream.wait_for("goodbye")
        connection.sendall(body[-1:])
        answer = connection.makefile("rb").readline()
    assert answer == b"HTTP/1.1 200 OK\r\n"
    eventually(lambda: victim.is_back(stopped))
