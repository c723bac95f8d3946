"""`python -m tests.faults.batch --rows 500`: a batch whose process is killed at random, and the API with it; what came of it."""

import argparse
import collections
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

import darkroom
from tests.conftest import PHOTOGRAPH, TENANTS, eventually
from tests.faults.conftest import supervised

COMMAND = str(Path(sys.executable).parent / "darkroom")


def _count(folder: Path) -> int:
    return len(list(folder.glob("*.webp")))


def _reach(out: Path, results: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the batch has so many results."""
    eventually(lambda: _count(out) >= results or process.poll() is not None, within_s=300)
    assert process.poll() is None, "it goes on"


def main() -> None:
    """Run it, and fail unless each row has one result of one generation."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.batch", description=__doc__.partition(";")[0])
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    print(f"seed {asked.seed}")
    with tempfile.TemporaryDirectory() as name, supervised(Path(name) / "stack", DARKROOM_MODELS='["quick"]') as victim:
        folder, out = Path(name), Path(name) / "results"
        with Image.open(PHOTOGRAPH) as photograph:
            photograph.resize((64, 64)).save(folder / "small.png")
        lines = ["custom_id,image,prompt,seed", *(f"row-{n},small.png,make it sepia,{n}" for n in range(asked.rows))]
        (folder / "edits.csv").write_text("\n".join(lines))
        environment = {**os.environ, "DARKROOM_URL": victim.stack.url, "DARKROOM_API_KEY": TENANTS["alice"]}
        command = [COMMAND, "batch", str(folder / "edits.csv"), "--out", str(out), "--model", "quick"]
        for part in sorted(chance.sample(range(1, asked.rows), asked.kills)):
            before = _count(out)
            with subprocess.Popen(command, env=environment) as process:
                _reach(out, (before + max(part, before + 2)) // 2, process)
                # Under a batch that runs: it has to come through.
                killed = victim.signal("api", signal.SIGKILL)
                _reach(out, part, process)
                process.kill()
            print(f"API killed, then the batch, at {_count(out)} results", flush=True)
            eventually(lambda killed=killed: victim.is_back(killed))
        began = time.monotonic()
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        print(done.stdout.strip(), f"({time.monotonic() - began:.0f} s)")
        with (out / "manifest.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        with darkroom.Client(victim.stack.url, TENANTS["alice"]) as service:
            ran = collections.Counter(one.raw["custom_id"] for one in service.generations(status="all"))
        wanted = [f"row-{n}" for n in range(asked.rows)]
        assert [row["custom_id"] for row in rows] == wanted, "the manifest is complete"
        assert all((out / row["file"]).is_file() for row in rows), "each has its file"
        assert ran == dict.fromkeys(wanted, 1), "each ran once"
        assert done.returncode == 0, done.stderr
        print(f"{asked.rows} rows, {asked.rows} results, each of one generation")


if __name__ == "__main__":
    main()
