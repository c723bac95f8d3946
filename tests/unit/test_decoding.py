"""Decoding in a child process: whatever a picture does to its decoder, the worker goes on and has its memory back."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from storage.contracts import errors
from tests.conftest import encoded
from tests.faults import mutations
from workers.decoding import pool
from workers.decoding.pool import Decoders

SMALL = encoded(Image.new("RGB", (64, 48), "red"), "PNG")


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with contextlib.closing(Decoders(count=1, memory_mb=400, limit_s=10)) as decoders:
        yield decoders


def _pid(decoders: Decoders) -> int:
    (child,) = decoders._idle
    return child._process.pid


def _decodes(decoders: Decoders) -> bool:
    return decoders.decode(SMALL, "input_image").image.getpixel((0, 0)) == (255, 0, 0)


def test_a_picture_that_takes_too_much_memory_is_refused_and_the_next_is_decoded(decoders: Decoders) -> None:
    large = encoded(Image.new("RGBA", (7000, 7000), (1, 2, 3, 4)), "PNG")
    assert len(large) < 10**6
    with pytest.raises(
        errors.InvalidInputError, match="input_image could not be decoded within 400 MiB and 10 seconds"
    ):
        decoders.decode(large, "input_image")
    assert _decodes(decoders)


def test_what_a_large_picture_took_goes_back_to_the_system() -> None:
    large = encoded(Image.new("RGB", (7000, 7000)), "PNG")
    with contextlib.closing(Decoders(count=1)) as decoders:
        assert _decodes(decoders)
        before = _pid(decoders)
        assert _decodes(decoders)
        assert _pid(decoders) == before, "small ones share a process"
        assert decoders.decode(large, "input_image").original.width == 7000
        assert decoders._idle == []
        with pytest.raises(ProcessLookupError):
            os.kill(before, 0)
        assert _decodes(decoders)


def test_a_decoder_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(Decoders(count=1, limit_s=0.1)) as decoders:
        monkeypatch.setattr(pool, "WALL_PER_PROCESSOR_SECOND", 100)
        assert _decodes(decoders)
        monkeypatch.setattr(pool, "WALL_PER_PROCESSOR_SECOND", 1)
        os.kill(_pid(decoders), signal.SIGSTOP)
        with pytest.raises(errors.InvalidInputError, match="could not be decoded"):
            decoders.decode(SMALL, "input_image")
        monkeypatch.setattr(pool, "WALL_PER_PROCESSOR_SECOND", 100)
        assert _decodes(decoders)


def test_a_decoder_that_crashes_costs_its_picture_and_nothing_else(decoders: Decoders) -> None:
    assert _decodes(decoders)
    pid = _pid(decoders)
    os.kill(pid, signal.SIGSTOP)
    crash = threading.Timer(0.2, os.kill, (pid, signal.SIGSEGV))
    crash.start()
    wake = threading.Timer(0.3, os.kill, (pid, signal.SIGCONT))
    wake.start()
    with pytest.raises(errors.InvalidInputError, match="could not be decoded"):
        decoders.decode(SMALL, "input_image")
    assert _decodes(decoders)
    crash.join()
    wake.join()


def test_a_decoder_that_the_system_ends_for_want_of_memory_is_no_fault_of_the_picture(decoders: Decoders) -> None:
    assert _decodes(decoders)
    pid = _pid(decoders)
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(errors.OutOfMemoryError):
        decoders.decode(SMALL, "input_image")
    assert _decodes(decoders)


def test_a_decoder_that_died_while_nothing_was_asked_costs_no_picture(decoders: Decoders) -> None:
    assert _decodes(decoders)
    os.kill(_pid(decoders), signal.SIGKILL)
    decoders._idle[0]._process.wait()
    assert _decodes(decoders)


def test_a_decoder_that_cannot_be_started_is_no_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with contextlib.closing(Decoders(count=1)) as decoders, pytest.raises(errors.InternalError):
        decoders.decode(SMALL, "input_image")


def test_refusals_come_through_as_they_are(decoders: Decoders) -> None:
    with pytest.raises(errors.InvalidInputError, match="mask_image must be a whole PNG") as refused:
        decoders.decode_mask(b"text", "mask_image", "luminance")
    assert refused.value.field == "mask_image"


def test_a_mask_is_its_brightness_or_its_holes(decoders: Decoders) -> None:
    holed = encoded(Image.new("RGBA", (64, 48), (200, 200, 200, 0)), "PNG")
    assert decoders.decode_mask(holed, "mask_image", "alpha").image.getpixel((0, 0)) == 255
    assert decoders.decode_mask(SMALL, "mask_image", "luminance").image.mode == "L"


def test_no_key_of_the_worker_is_in_a_decoders_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_API_KEY", "secret-of-the-worker")
    with contextlib.closing(Decoders(count=1)) as decoders:
        assert _decodes(decoders)
        assert b"secret-of-the-worker" not in Path(f"/proc/{_pid(decoders)}/environ").read_bytes()


CONFINED = """
import socket, sys
from workers.decoding import child
child._confine(512)
for attempt in (socket.socket, lambda: open("/etc/passwd"), lambda: open("/proc/self/oom_score_adj")):
    try:
        attempt()
    except OSError:
        continue
    sys.exit("it could")
try:
    bytearray(600 * 2**20)
except MemoryError:
    sys.exit(0)
sys.exit("it had the memory")
"""


def _run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)


def test_a_decoder_opens_no_file_and_no_socket_and_has_no_more_memory_than_it_may() -> None:
    done = _run(CONFINED)
    assert done.returncode == 0, done.stderr


def test_a_decoder_that_computes_too_long_is_ended_by_the_kernel() -> None:
    done = _run("from workers.decoding import child\nchild._allow_processor_time(0.1)\nwhile True: pass")
    assert done.returncode == -signal.SIGXCPU


def test_a_decoder_ends_with_its_worker() -> None:
    command = [sys.executable, "-m", "workers.decoding.child", "512", "10"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        assert child.stdin
        child.stdin.close()
        assert child.wait(timeout=60) == 0


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"mode": "RGB", "size": [64, 48], "original": [64, 48]},
        {"mode": "RGBX", "size": [1, 1], "original": [1, 1]},
        {"mode": "RGB", "size": [100_000, 100_000], "original": [1, 1]},
        {"mode": "L", "size": [2, 2], "original": [0, 1]},
    ],
)
def test_a_decoder_that_lies_is_not_believed(answer: dict[str, object]) -> None:
    with pytest.raises(errors.InternalError):
        pool._decoded(answer, b"1234")


@pytest.mark.filterwarnings("ignore")
def test_damaged_pictures_are_pictures_or_refused_and_leave_no_memory_behind() -> None:
    outcomes, grown_mb = mutations.run(300, seed=random.randrange(2**32))
    assert outcomes.keys() <= {"decoded", "refused", "exhausted"}
    assert min(outcomes["decoded"], outcomes["refused"]) > 20
    assert grown_mb < 50
