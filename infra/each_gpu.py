"""`python -m infra.each_gpu`: a GPU worker for each GPU of this machine, bound to it, and started again when it dies.

`DARKROOM_GPUS` names them, separated by commas (as `CUDA_VISIBLE_DEVICES` does); by default those that `nvidia-smi` lists,
slices in place of the GPUs that are cut into some. All are of one type (`DARKROOM_GPU_TYPE`). Workers share the page cache of
the weights, and the machine's memory is divided among them. With `DARKROOM_TEXT_ENCODERS` so many of the GPUs, the last ones,
have text encoders alone and encode prompts for the others.
"""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from infra.children import Child
from storage.signals import SignalEvent
from workers.settings import GpuSettings

log = logging.getLogger(__name__)

GPU_WORKER, TEXT_ENCODER = "workers.gpu", "workers.text_encoder"
LOOK_S = 0.5
BEYOND_GRACE_S = 30.0
"""How long a worker may take to end after its own grace period; then it is killed."""

_LISTED = re.compile(r"^\s*(GPU|MIG) .*\(UUID: ((?:GPU|MIG)-[0-9a-fA-F-]+)\)\s*$")


def gpus_of(environment: Mapping[str, str]) -> list[str]:
    """Identifiers of the GPUs that workers are to be started for. Raises `ValueError` with a sentence."""
    if named := environment.get("DARKROOM_GPUS", ""):
        gpus = [one.strip() for one in named.split(",") if one.strip()]
        if len(set(gpus)) < len(gpus):
            raise ValueError(f"DARKROOM_GPUS names one twice: {named}")
        return gpus
    try:
        done = subprocess.run(["nvidia-smi", "-L"], check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as exc:
        raise ValueError(
            f"nvidia-smi does not list the GPUs ({type(exc).__name__}); DARKROOM_GPUS can name them"
        ) from None
    gpus = listed(done.stdout)
    if not gpus:
        raise ValueError("nvidia-smi lists no GPU; DARKROOM_GPUS can name some")
    return gpus


def listed(text: str) -> list[str]:
    """What `nvidia-smi -L` lists: each GPU, or its slices where it is cut into some."""
    uuids: list[str] = []
    whole: str | None = None
    for line in text.splitlines():
        if match := _LISTED.match(line):
            kind, uuid = match.groups()
            if kind == "MIG" and whole is not None:
                uuids.remove(whole)
            whole = uuid if kind == "GPU" else None
            uuids.append(uuid)
    return uuids


def environments(gpus: Sequence[str], environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """By name what each GPU's worker is started with: its GPU alone, a name, and a port of its own for its metrics."""
    host = environment.get("DARKROOM_WORKER_NAME") or socket.gethostname()
    first = int(environment.get("DARKROOM_METRICS_PORT") or 0)
    return {
        f"{host}-gpu{number}": {
            **environment,
            "CUDA_VISIBLE_DEVICES": gpu,
            "DARKROOM_WORKER_NAME": f"{host}-gpu{number}",
            "DARKROOM_WORKERS_ON_HOST": str(len(gpus)),
            **({"DARKROOM_METRICS_PORT": str(first + number)} if first else {}),
        }
        for number, gpu in enumerate(gpus)
    }


def text_encoders_of(environment: Mapping[str, str], gpus: int) -> int:
    """How many of the GPUs encode prompts for the others. Raises `ValueError` with a sentence."""
    text = environment.get("DARKROOM_TEXT_ENCODERS") or "0"
    if not text.isdecimal() or not int(text) < gpus:
        raise ValueError(f"DARKROOM_TEXT_ENCODERS must leave a GPU of {gpus} for edits; got {text!r}")
    return int(text)


def run(environment: Mapping[str, str], stopping: threading.Event, hurry: threading.Event) -> None:
    """Keep a worker for each GPU running until told to stop; then all finish what they hold at the same time.

    With `hurry` they hand it back at once. Raises `ValueError` with a sentence.
    """
    gpus = gpus_of(environment)
    grace_s = GpuSettings().grace_s
    count = len(gpus) - text_encoders_of(environment, len(gpus))
    if count < len(gpus) and not environment.get("DARKROOM_TEXT_ENCODING"):
        # All start together: a GPU worker that waited to see a text encoder would load its own.
        environment = {**environment, "DARKROOM_TEXT_ENCODING": "elsewhere"}
    children = [
        Child(name, (sys.executable, "-m", GPU_WORKER if number < count else TEXT_ENCODER), own, None)
        for number, (name, own) in enumerate(environments(gpus, environment).items())
    ]
    editing, encoding = children[:count], children[count:]
    log.info("workers of %d GPUs: %s", len(children), ", ".join(f"{one.name} {one.pid}" for one in children))
    while not stopping.wait(LOOK_S):
        for one in children:
            one.restart_if_dead()
    for one in editing:
        one.terminate()
    until = time.monotonic() + grace_s + BEYOND_GRACE_S
    while any(one.alive for one in editing) and time.monotonic() < until and not hurry.wait(LOOK_S):
        pass
    # What is still edited needs them until then.
    for one in encoding:
        one.terminate()
    for one in editing if hurry.is_set() else ():
        one.terminate()
    for one in editing:
        one.wait(max(BEYOND_GRACE_S, until - time.monotonic()) if hurry.is_set() else 0)
    for one in encoding:
        one.wait(BEYOND_GRACE_S)


def main() -> None:
    """Run until SIGTERM or SIGINT; a second one is passed on, and has workers hand back what they hold."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stopping, hurry = SignalEvent(), SignalEvent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: hurry.set() if stopping.is_set() else stopping.set())
    try:
        run(os.environ, stopping, hurry)
    except ValueError as exc:
        sys.exit(f"darkroom: {exc}")


if __name__ == "__main__":
    main()
