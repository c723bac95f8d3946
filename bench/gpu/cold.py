"""From nothing to the first picture, in four parts, each in a process of its own as a worker starts."""

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.gpu.cases import Machine
    from bench.gpu.measuring import Row

BEGAN = time.monotonic()
"""Before torch is imported: how long that takes is part of the answer."""

MODEL = "flux-2-klein-4b"
RAM_DISK = Path("/dev/shm")  # noqa: S108  (weights that are read from a disk measure the disk)
WEIGHTS_BYTES = 20 * 10**9
LIMIT_S = 150
"""Of one start."""


def rows(machine: "Machine") -> "Iterator[Row]":
    """Klein 4B's weights from files: with nothing compiled before, and once more with the first run's compile cache."""
    from bench.gpu import building
    from bench.gpu.measuring import Row

    has_room = RAM_DISK.is_dir() and shutil.disk_usage(RAM_DISK).free > WEIGHTS_BYTES
    with tempfile.TemporaryDirectory(dir=RAM_DISK if has_room else None) as folder:
        weights = Path(folder) / "weights"
        pipe = building.pipe(MODEL, machine.device, machine.dtype)
        pipe.save_pretrained(weights / "klein", safe_serialization=True)
        del pipe
        building.free()
        labels = ["cold start, first edit eager", "cold start"]
        if machine.device == "cuda":
            # Shrunk models run their graphs as they are: there is no code to keep.
            labels.append("cold start, compile cache")
        for label in labels:
            found = _started(machine, weights, Path(folder) / "cache", at_once="eager" in label)
            parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in found.items())
            yield Row(model=MODEL, label=label, references=1, edit_s=sum(found.values()), edits=1, note=parts)


def _started(machine: "Machine", weights: Path, cache: Path, *, at_once: bool) -> dict[str, float]:
    asked = {
        "weights": str(weights), "cache": str(cache), "gpu_type": machine.gpu_type, "side": machine.side,
        "shrunk": machine.device == "cpu", "at_once": at_once,
    }  # fmt: skip
    command = [sys.executable, "-m", "bench.gpu.cold", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(asked: Mapping[str, Any]) -> dict[str, float]:
    """What the started process does. Returns seconds by part."""
    from bench.gpu import building, measuring
    from storage.contracts import planning
    from storage.settings import StoreSettings
    from workers import compiling
    from workers.loader import Loader

    known = StoreSettings().read_catalog()
    model, gpu = known.models[MODEL], known.gpu_types[asked["gpu_type"]]
    update: dict[str, Any] = {"source": "klein"}
    if asked["shrunk"]:
        update["text_layers"] = building.SHRUNK_TEXT_LAYERS
        frame = model.frame.model_copy(update={"sizes": ("128x128",), "reference_pixels": 128 * 128})
        model = model.model_copy(update={"frame": frame})
    model = model.model_copy(update={"weights": model.weights.model_copy(update=update)})
    plan = planning.planned(model, gpu)
    assert plan is not None
    cache = compiling.keep_in(Path(asked["cache"]))
    imported = time.monotonic()
    kind = "cpu" if asked["shrunk"] else asked["gpu_type"]
    loader = Loader(weights_dir=Path(asked["weights"]), gpu_type=kind, compile_cache=cache)
    loaded = loader.load(model, plan, lambda share: None, at_once=asked["at_once"])
    job = measuring.job(1, asked["side"], 4)
    first = measuring.timed(lambda: loaded.pipeline.edit(job, lambda step: None))
    return {
        "import": imported - BEGAN + loaded.cold_start.import_s,
        "read": loaded.cold_start.read_s,
        "compile": loaded.cold_start.warm_up_s,
        "first image": first,
    }


if __name__ == "__main__":
    from bench.gpu.building import shrunk

    settings = json.loads(sys.argv[1])
    with shrunk() if settings["shrunk"] else contextlib.nullcontext():
        print(json.dumps(main(settings)))
