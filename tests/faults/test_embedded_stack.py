"""Promise: the stack starts, says why when it cannot, and leaves nothing behind."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from infra import embedded, readiness, stack_options
from tests.conftest import TENANTS, Tenant, eventually, running_stack, stack_environment
from tests.web import free_port

NO_TORCH = {"DARKROOM_MODELS": '["quick"]'}
"""A worker that starts in a second."""


@contextlib.contextmanager
def _up(data_dir: Path, *, with_weights: bool = True, **extra: str) -> Iterator[subprocess.Popen[str]]:
    """`make up`, killed at the end should it still run."""
    environment = {**stack_environment(data_dir), **NO_TORCH, **extra}
    if not with_weights:
        del environment["DARKROOM_WEIGHTS_DIR"]
    command = [sys.executable, "-u", "-m", "infra.up"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _first_lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout
    return [process.stdout.readline() for _ in range(count)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_make_up_tells_address_and_key_and_leaves_no_process_and_no_port(
    tmp_path: Path, number: signal.Signals
) -> None:
    port = free_port()
    with _up(tmp_path, DARKROOM_PORT=str(port), DARKROOM_API_KEY="my-own-development-key") as process:
        lines = "".join(_first_lines(process, 8))
        assert f"ready at http://127.0.0.1:{port}" in lines
        assert f"export DARKROOM_API_KEY=my-own-development-key DARKROOM_URL=http://127.0.0.1:{port}\n" in lines
        assert str(tmp_path) in lines
        family = psutil.Process(process.pid).children(recursive=True)
        listening = [conn for child in family for conn in child.net_connections() if conn.status == psutil.CONN_LISTEN]
        ports = {conn.laddr.port for conn in listening}
        assert len(family) >= 5
        assert port in ports
        process.send_signal(number)
        assert process.wait(40) == 0
    assert [child for child in family if child.is_running()] == []
    for used in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", used))


def test_asked_twice_make_up_ends_before_what_is_being_edited(tmp_path: Path, tiny: str) -> None:
    port = free_port()
    with _up(
        tmp_path, DARKROOM_PORT=str(port), DARKROOM_API_KEYS=json.dumps(TENANTS), DARKROOM_MODELS='["slower"]'
    ) as process:
        _first_lines(process, 6)
        alice = Tenant(f"http://127.0.0.1:{port}", "alice", TENANTS["alice"])
        id_ = alice.enqueue(tiny, model="slower", num_inference_steps=50)
        eventually(lambda: (alice.get(f"/api/ai/queue/{id_}").json()["progress"] or {}).get("step"))
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert "Ctrl-C again" in "".join(_first_lines(process, 4))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert time.monotonic() - asked < 15, "it would have taken twenty seconds"


def test_should_the_stack_itself_be_killed_its_children_go_too(tmp_path: Path) -> None:
    with _up(tmp_path) as process:
        _first_lines(process, 5)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    eventually(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in family))


def _complaint(data_dir: Path, **extra: str) -> str:
    """What it says when it cannot start."""
    with _up(data_dir, **extra) as process:
        _, complaint = process.communicate(timeout=60)
        assert process.returncode == 1
        return complaint


def test_a_busy_port_is_said_to_be(stack: embedded.Stack, tmp_path: Path) -> None:
    port = stack.url.rpartition(":")[2]
    assert f"port {port} cannot be used (Address already in use); set DARKROOM_PORT" in _complaint(
        tmp_path, DARKROOM_PORT=port
    )


def test_an_api_whose_port_is_taken_ends(stack: embedded.Stack) -> None:
    environment = {**os.environ, **stack.children["api"].environment}
    command = [sys.executable, "-m", "api"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "address already in use" in done.stderr


def test_the_api_is_given_no_port_of_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"valkey_port": "50001", "s3_port": "50002"}
    free = iter([50001, 50002, 50003])
    monkeypatch.setattr(stack_options, "checked_port", lambda port: next(free))
    assert stack_options.own_port(0, kept) == 50003
    with pytest.raises(stack_options.StartError, match="port 50002 is kept for a store"):
        stack_options.own_port(50002, kept)


def test_the_bucket_is_the_one_that_the_environment_names() -> None:
    stores = {"REDIS_URL": "redis://127.0.0.1:1/0", "S3_ENDPOINT_URL": "http://127.0.0.1:2"}
    assert stack_options.store_settings(stores).s3_bucket == "darkroom"
    assert stack_options.store_settings({**stores, "S3_BUCKET": "pictures"}).s3_bucket == "pictures"


def test_weights_are_furnished_and_small_ones_of_an_earlier_edition_built_anew(tmp_path: Path) -> None:
    old = tmp_path / "weights" / "small-flux2" / "model_index.json"
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    with _up(tmp_path, with_weights=False) as process:
        _first_lines(process, 5)
        assert "PixtralProcessor" in old.read_text()
        assert {one.name for one in (tmp_path / "weights").iterdir()} >= {"small-flux2", "small-klein", "kontext-mini"}


def test_a_folder_in_use_is_said_to_be(stack: embedded.Stack) -> None:
    assert "another stack uses" in _complaint(stack.options.data_dir)


def test_a_bad_setting_stops_the_start_naming_it(tmp_path: Path) -> None:
    assert "lease_s" in _complaint(tmp_path, DARKROOM_LEASE_S="soon").lower()
    for said in (
        _complaint(tmp_path / "other", DARKROOM_FETCH_ALLOWED="localhost:80"),
        _complaint(tmp_path / "another", DARKROOM_DATA_DIR="/proc/no/folder"),
    ):
        assert re.match("darkroom: DARKROOM_(FETCH_ALLOWED must be JSON|DATA_DIR: no folder can be made there)", said)
        assert "Traceback" not in said


def test_a_store_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(readiness, "START_LIMIT_S", 0.2)
    options = stack_options.Options.from_environment(
        {"DARKROOM_DATA_DIR": str(tmp_path), "REDIS_URL": "redis://:a-secret@127.0.0.1:1/0"}
    )
    assert "Valkey" not in embedded.parts(options)
    with (
        pytest.raises(stack_options.StartError, match=r"Redis \(REDIS_URL\): .*127\.0\.0\.1:1") as refused,
        embedded.running(options),
    ):
        pass
    assert "a-secret" not in str(refused.value)


@pytest.mark.parametrize("value", ["eight", "70000", "-1"])
def test_a_port_that_is_none_is_said_to_be(tmp_path: Path, value: str) -> None:
    with pytest.raises(stack_options.StartError, match="DARKROOM_PORT must be a number from 0 to 65535"):
        stack_options.Options.from_environment({"DARKROOM_PORT": value, "DARKROOM_DATA_DIR": str(tmp_path)})


def test_two_stacks_side_by_side_do_not_touch_each_other_and_data_survives_a_restart(
    stack: embedded.Stack, tmp_path: Path, tiny: str
) -> None:
    with running_stack(tmp_path, **NO_TORCH) as second:
        other = Tenant(second.url, "alice", TENANTS["alice"])
        id_ = other.enqueue(tiny)
        url = other.finished(id_)["result_url"]
        assert Tenant(stack.url, "alice", TENANTS["alice"]).get(f"/api/ai/queue/{id_}").status_code == 404
    with running_stack(tmp_path, **NO_TORCH) as again:
        other = Tenant(again.url, "alice", TENANTS["alice"])
        assert other.finished(id_)["status"] == "succeeded"
        assert requests.get(url, timeout=10).status_code == 200, "a URL handed out before the restart stays good"


def test_secrets_lie_in_files_of_the_owner_alone(stack: embedded.Stack) -> None:
    for name in ("stack.json", "valkey/valkey.conf"):
        assert (stack.options.data_dir / name).stat().st_mode & 0o077 == 0


def test_no_secret_prompt_or_signed_url_is_logged(stack: embedded.Stack, alice: Tenant, tiny: str) -> None:
    found = alice.finished(alice.enqueue(tiny, prompt="a very secret prompt"))
    requests.get(found["result_url"], timeout=10)
    alice.finished(alice.enqueue("http://127.0.0.1:1/secret-picture.png"))
    logged = "".join(file.read_text(errors="replace") for file in (stack.options.data_dir / "logs").glob("*.log"))
    assert found["generation_id"] in logged
    for secret in ("a very secret prompt", "secret-picture", "X-Amz-Signature", alice.key, "data:image"):
        assert secret not in logged


def test_keys_that_are_brought_along_are_the_only_ones(tmp_path: Path) -> None:
    with running_stack(tmp_path, **NO_TORCH) as stack:
        assert stack.api_key is None
        made = json.loads((tmp_path / stack_options.KEPT).read_text())["api_key"]
        answered = [
            requests.get(
                f"{stack.url}/api/ai/models", headers={"Authorization": f"Bearer {key}"}, timeout=30
            ).status_code
            for key in (TENANTS["alice"], made)
        ]
    assert answered == [200, 401]
