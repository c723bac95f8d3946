"""A worker for each GPU of a machine: which there are, and what each is started with."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from infra import each_gpu
from infra.children import Child
from tests.conftest import eventually

LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-11111111-aaaa-bbbb-cccc-000000000000)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-22222222-aaaa-bbbb-cccc-000000000000)
  MIG 3g.40gb     Device  0: (UUID: MIG-33333333-aaaa-bbbb-cccc-000000000000)
  MIG 3g.40gb     Device  1: (UUID: MIG-44444444-aaaa-bbbb-cccc-000000000000)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-55555555-aaaa-bbbb-cccc-000000000000)
"""


def test_slices_stand_for_the_gpu_that_is_cut() -> None:
    assert [one[:12] for one in each_gpu.listed(LISTED)] == [
        "GPU-11111111",
        "MIG-33333333",
        "MIG-44444444",
        "GPU-55555555",
    ]
    assert each_gpu.listed("No devices were found\n") == []


def test_those_that_are_named_are_taken() -> None:
    assert each_gpu.gpus_of({"DARKROOM_GPUS": "0, 2"}) == ["0", "2"]
    with pytest.raises(ValueError, match="names one twice"):
        each_gpu.gpus_of({"DARKROOM_GPUS": "0,0"})


def test_a_machine_without_gpus_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="DARKROOM_GPUS can name them"):
        each_gpu.gpus_of({})
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    with pytest.raises(ValueError, match="lists no GPU"):
        each_gpu.gpus_of({})


def test_each_has_a_gpu_a_name_and_a_port_of_its_own() -> None:
    found = each_gpu.environments(
        ["0", "1"], {"DARKROOM_WORKER_NAME": "big", "DARKROOM_METRICS_PORT": "9464", "A": "b"}
    )
    assert list(found) == ["big-gpu0", "big-gpu1"]
    for number, (name, own) in enumerate(found.items()):
        assert own == {
            "A": "b", "CUDA_VISIBLE_DEVICES": str(number), "DARKROOM_WORKER_NAME": name, "DARKROOM_WORKERS_ON_HOST": "2",
            "DARKROOM_METRICS_PORT": str(9464 + number),
        }  # fmt: skip
    (alone,) = each_gpu.environments(["0"], {}).values()
    assert "DARKROOM_METRICS_PORT" not in alone


WORKER = """
import os, signal, sys, time
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
print("up", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
while len(told) < int(sys.argv[1]):
    time.sleep(0.01)
print("down", os.environ["CUDA_VISIBLE_DEVICES"], len(told), flush=True)
"""


@pytest.mark.parametrize("signals", [1, 2], ids=["told once", "told twice"])
def test_all_are_started_again_and_stopped_together(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], signals: int
) -> None:
    started: list[Child] = []

    def child(name: str, command: object, environment: dict[str, str], log_file: None) -> Child:
        started.append(Child(name, [sys.executable, "-c", WORKER, str(signals)], environment, log_file))
        return started[-1]

    monkeypatch.setattr(each_gpu, "Child", child)
    monkeypatch.setattr(each_gpu, "LOOK_S", 0.02)
    stopping, hurry, text = threading.Event(), threading.Event(), ""

    def said() -> str:
        nonlocal text
        text += capfd.readouterr().out
        return text

    running = threading.Thread(target=each_gpu.run, args=[{"DARKROOM_GPUS": "a,b"}, stopping, hurry])
    running.start()
    eventually(lambda: said().count("up") == 2)
    started[0]._process.send_signal(signal.SIGKILL)
    eventually(lambda: said().count("up a") == 2)
    began = time.monotonic()
    stopping.set()
    if signals == 2:
        time.sleep(0.1)
        assert running.is_alive(), "they finish what they hold"
        hurry.set()
    running.join(20)
    assert not running.is_alive()
    assert time.monotonic() - began < 10
    ended = {f"down {gpu} {signals}" for gpu in "ab"}
    eventually(lambda: ended <= set(said().splitlines()))


@pytest.mark.parametrize(("told", "count"), [({}, 0), ({"DARKROOM_TEXT_ENCODERS": "2"}, 2)])
def test_the_last_gpus_encode_prompts_for_the_others(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, str], count: int
) -> None:
    started: dict[str, tuple[str, str]] = {}
    encodings: set[str | None] = set()

    class Noted:
        pid, alive = 1, False

        def __init__(self, name: str, command: tuple[str, ...], environment: dict[str, str], log_file: None) -> None:
            started[name] = (command[-1], environment["CUDA_VISIBLE_DEVICES"])
            encodings.add(environment.get("DARKROOM_TEXT_ENCODING"))

        def __getattr__(self, name: str) -> Any:
            return lambda *_: False

    monkeypatch.setattr(each_gpu, "Child", Noted)
    stopping = threading.Event()
    stopping.set()
    each_gpu.run({"DARKROOM_GPUS": "a,b,c", "DARKROOM_WORKER_NAME": "host", **told}, stopping, threading.Event())
    modules = ["workers.gpu"] * (3 - count) + ["workers.text_encoder"] * count
    assert list(started.values()) == list(zip(modules, "abc", strict=True))
    assert encodings == {"elsewhere" if count else None}, "all start together, and none is to load its own"


@pytest.mark.parametrize("count", ["3", "-1", "all"])
def test_a_gpu_must_be_left_for_edits(count: str) -> None:
    with pytest.raises(ValueError, match="must leave a GPU of 3 for edits"):
        each_gpu.text_encoders_of({"DARKROOM_TEXT_ENCODERS": count}, 3)


def test_what_is_wrong_is_said_in_a_sentence() -> None:
    environment = {"PATH": "/nowhere", "DARKROOM_GPUS": "1,1"}
    command = [sys.executable, "-m", "infra.each_gpu"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (1, "darkroom: DARKROOM_GPUS names one twice: 1,1")
