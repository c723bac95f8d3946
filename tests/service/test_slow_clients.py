"""Clients that send slowly, too much or nothing hold nobody else up."""

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import requests

from infra import embedded
from tests.conftest import TENANTS, Tenant, eventually, stack_environment
from tests.web import free_port

CONNECTIONS = 300


@pytest.fixture(scope="module")
def guarded(stack: embedded.Stack) -> Iterator[Tenant]:
    """Another API process of the stack's, less patient and with room for fewer connections."""
    port = free_port()
    secret = stack.store.s3_secret_access_key
    assert secret
    environment = {
        **os.environ,
        "DARKROOM_PORT": str(port),
        "DARKROOM_CATALOG": stack_environment(stack.options.data_dir)["DARKROOM_CATALOG"],
        "DARKROOM_API_KEY": TENANTS["frank"],
        "DARKROOM_HEAD_LIMIT_S": "1.5",
        "DARKROOM_BODY_PAUSE_S": "1",
        "DARKROOM_BODY_LIMIT_S": "3",
        "DARKROOM_MAX_CONNECTIONS": str(CONNECTIONS),
        "REDIS_URL": stack.store.redis_url.get_secret_value(),
        "S3_ENDPOINT_URL": stack.store.s3_endpoint_url or "",
        "S3_BUCKET": stack.store.s3_bucket,
        "S3_ACCESS_KEY_ID": stack.store.s3_access_key_id or "",
        "S3_SECRET_ACCESS_KEY": secret.get_secret_value(),
    }
    with subprocess.Popen([sys.executable, "-m", "api"], env=environment) as process:
        frank = Tenant(f"http://127.0.0.1:{port}", "frank", TENANTS["frank"])
        try:
            eventually(lambda: _answers(frank))
            yield frank
        finally:
            process.terminate()


def _answers(tenant: Tenant) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return tenant.get("/health/live").status_code == 200
    return False


def _connected(tenant: Tenant) -> socket.socket:
    host, port = tenant.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def _ask(connection: socket.socket) -> None:
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = b""
    while not answer.endswith(b'{"status":"live"}'):
        piece = connection.recv(65536)
        assert piece, answer
        answer += piece


def _end(connection: socket.socket) -> tuple[bytes, float]:
    """What a connection is answered until the server closes it, and after how many seconds that is."""
    began, answer = time.monotonic(), b""
    with contextlib.suppress(ConnectionResetError), connection:
        while piece := connection.recv(65536):
            answer += piece
    return answer, time.monotonic() - began


@pytest.mark.parametrize(
    "begun", [b"", b"GET /health/live HTTP/1.1\r\n", b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: "]
)
def test_a_head_that_does_not_come_in_time_is_not_waited_for(guarded: Tenant, begun: bytes) -> None:
    connection = _connected(guarded)
    connection.sendall(begun)
    answer, seconds = _end(connection)
    assert answer == b""
    assert 1 < seconds < 5


def test_a_head_that_drips_is_not_waited_for_either(guarded: Tenant) -> None:
    connection = _connected(guarded)
    connection.sendall(b"GET /health/live HTTP/1.1\r\n")
    began = time.monotonic()
    with contextlib.suppress(OSError), connection:
        while time.monotonic() - began < 10:
            connection.sendall(b"X-A: b\r\n")
            time.sleep(0.1)
    assert time.monotonic() - began < 5


def test_the_second_request_of_a_connection_has_as_much_time(guarded: Tenant) -> None:
    connection = _connected(guarded)
    _ask(connection)
    time.sleep(2)
    _ask(connection)  # an idle connection is kept
    connection.sendall(b"GET /health")
    answer, seconds = _end(connection)
    assert answer == b""
    assert 1 < seconds < 5


def test_a_head_of_very_many_bytes_is_cut_off(guarded: Tenant) -> None:
    connection = _connected(guarded)
    with contextlib.suppress(OSError):
        connection.sendall(b"GET /health/live HTTP/1.1\r\n" + b"X-A: b\r\n" * 20_000)
    assert _end(connection)[1] < 1


CHUNKED = b"POST /api/ai/queue HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("piece", [b"a:b\r\n" * 1000, b"x" * 5000], ids=["many", "one"])
def test_trailers_without_end_are_cut_off(guarded: Tenant, piece: bytes) -> None:
    connection, sent = _connected(guarded), 0
    connection.sendall(CHUNKED + b"\r\n0\r\na:")
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while sent < 2**23:
            connection.sendall(piece)
            sent += len(piece)
    assert sent < 2**23
    connection.close()


@pytest.mark.parametrize(
    ("size", "is_trailer", "status"), [(40_000, False, b"400"), (10, False, b"404"), (10, True, b"401")]
)
def test_a_body_of_small_chunks_comes_through_and_its_trailer_is_no_header(
    guarded: Tenant, size: int, is_trailer: bool, status: bytes
) -> None:
    key = f"Authorization: Bearer {guarded.key}\r\n".encode()
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in b'{"model": "%s"}' % (b"x" * size))
    before, after = (b"", key) if is_trailer else (key, b"")
    with _connected(guarded) as connection:
        connection.sendall(CHUNKED + b"Connection: close\r\n" + before + b"\r\n" + body + b"0\r\n" + after + b"\r\n")
        answer, _ = _end(connection)
    assert answer.split(b" ", 2)[1] == status, answer[:400]


@pytest.mark.parametrize("every_s", [None, 0.3])
def test_a_body_that_stalls_or_drips_is_refused(guarded: Tenant, every_s: float | None) -> None:
    connection = _connected(guarded)
    head = f"POST /api/ai/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {guarded.key}\r\n"
    connection.sendall(head.encode() + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
    with contextlib.suppress(OSError):
        for _ in range(30 if every_s else 0):
            connection.sendall(b" ")
            time.sleep(every_s or 0)
    answer, seconds = _end(connection)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"did not come in time" in answer
    assert seconds < 5


def test_a_client_refused_before_the_body_has_come_reads_why_and_may_ask_again(guarded: Tenant) -> None:
    connection = _connected(guarded)
    head = b"POST /api/ai/queue HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nobody\r\nContent-Length: 3000000\r\n\r\n"
    connection.sendall(head + b"x" * 1000)
    answer = b""
    while b"unauthenticated" not in answer:
        answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 401")
    connection.sendall(b"x" * 2_999_000)
    _ask(connection)
    connection.sendall(head + b"x")
    answer, seconds = _end(connection)
    assert b"unauthenticated" in answer
    assert seconds < 5, "a body that does not come is not waited for"


def test_requests_that_are_sent_together_are_answered_in_turn(guarded: Tenant) -> None:
    with _connected(guarded) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
        answer = b""
        while answer.count(b'{"status":"live"}') < 5:
            piece = connection.recv(65536)
            assert piece, answer
            answer += piece
        _ask(connection)


def test_a_head_without_end_behind_a_long_answer_is_cut_off(guarded: Tenant, tiny: str) -> None:
    waiting = guarded.enqueue(tiny, model="slower", num_inference_steps=20)
    connection = _connected(guarded)
    head = f"GET /api/ai/queue/{waiting}?wait=20 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {guarded.key}\r\n\r\n"
    connection.sendall(head.encode() + b"GET /health/live HTTP/1.1\r\n")
    began = time.monotonic()
    with contextlib.suppress(OSError), connection:
        while time.monotonic() - began < 3:
            connection.sendall(b"X-A: b\r\n" * 100)
    assert time.monotonic() - began < 2


def test_a_client_that_waits_long_for_an_answer_is_not_cut_off(guarded: Tenant, tiny: str) -> None:
    waiting = guarded.enqueue(tiny, model="slower", num_inference_steps=20)
    assert guarded.get(f"/api/ai/queue/{waiting}?wait=30").json()["status"] == "succeeded"


def test_a_thousand_idle_connections_leave_room_for_who_has_something_to_ask(guarded: Tenant) -> None:
    held: list[socket.socket] = []
    try:
        seconds = []
        for count in range(1000):
            with contextlib.suppress(OSError):
                held.append(_connected(guarded))
            if count % 50 == 0:
                began = time.monotonic()
                assert guarded.get("/health/live").status_code == 200
                seconds.append(time.monotonic() - began)
        assert statistics.median(seconds) < 0.5
        assert max(seconds) < 2
    finally:
        for connection in held:
            connection.close()
