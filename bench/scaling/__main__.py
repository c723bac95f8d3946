"""`make bench-scaling`: a day of edits in minutes, by workers that come and go as the chart's rules say, and by a fixed fleet.

Real processes: API, housekeeping, Valkey, S3 server, workers whose model sleeps for a fifth of a second, and Prometheus, which is
asked the chart's own queries. Times are in seconds of the run; a start of a worker takes about one.
"""

import argparse
import dataclasses
import math
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import requests

from bench.overhead.__main__ import photograph
from bench.scaling import scaler
from infra import embedded, stack_options
from infra.children import Child

CATALOG = """
[models.sleep-200]
extends = "flux-kontext-dev"
pipeline = "stand_in"

[models.sleep-200.weights]
source = "200"
name = "sleeps"
licence = "none"
"""
EDIT_S = 0.2
MOST = 4
PEAK = 10.0
"""Edits a second at noon; one worker makes nearly five."""

LOOK_S = 0.5
WORKER = {
    "gpuType": "cpu",
    "autoscaling": {"enabled": True, "min": 0, "max": MOST, "queuedPerWorker": 5, "waitS": 2, "cooldownS": 6},
}


@dataclasses.dataclass
class Fleet:
    """Workers of a stack that has none of its own."""

    stack: embedded.Stack
    running: list[Child] = dataclasses.field(default_factory=list)
    leaving: list[Child] = dataclasses.field(default_factory=list)
    worker_s: float = 0.0
    most: int = 0
    started: int = 0

    def resize(self, count: int) -> None:
        """Start workers, or tell some to stop, which finish what they hold."""
        environment = self.stack.children["housekeeping"].environment
        while len(self.running) < count:
            self.started += 1
            name = f"worker-{self.started}"
            log_file = self.stack.options.data_dir / "logs" / f"{name}.log"
            self.running.append(Child(name, (sys.executable, "-m", "workers.gpu"), environment, log_file))
        while len(self.running) > count:
            one = self.running.pop()
            one.terminate()
            self.leaving.append(one)
        self.most = max(self.most, count)

    def count_for(self, seconds: float) -> None:
        """So long they were there, those that are leaving among them."""
        self.leaving = [one for one in self.leaving if one.alive]
        self.worker_s += seconds * (len(self.running) + len(self.leaving))

    def end(self) -> None:
        """Stop all."""
        for one in (*self.running, *self.leaving):
            one.stop()


@dataclasses.dataclass
class Day:
    """What became of one."""

    waits_ms: list[int]
    again: int
    worker_s: float
    most: int
    starts: int


def demand(share: float) -> float:
    """Edits a second at a share of the day: nothing at night, a peak at noon."""
    return PEAK * max(0.0, math.sin((share - 0.25) * 2 * math.pi))


def live(stack: embedded.Stack, seconds: float, decide: Callable[[], int], image: str) -> Day:
    """Send a day's edits while the fleet is resized every `LOOK_S`; then what became of each."""
    fleet, ids, chance = Fleet(stack), [], random.Random(1)  # noqa: S311  (no secret)
    edit = {"model": "sleep-200", "prompt": "x", "input_image": image}
    began, stopping = time.monotonic(), threading.Event()

    def manage() -> None:
        at = time.monotonic()
        while not stopping.wait(LOOK_S):
            fleet.resize(decide())
            now = time.monotonic()
            fleet.count_for(now - at)
            at = now

    manager = threading.Thread(target=manage)
    manager.start()
    with requests.Session() as http:
        http.headers["Authorization"] = f"Bearer {stack.api_key}"
        due = 0.0
        while due < seconds:
            rate = demand(due / seconds)
            due += chance.expovariate(rate) if rate > 0.05 else 0.25
            time.sleep(max(0.0, began + due - time.monotonic()))
            if rate > 0.05:
                answer = http.post(f"{stack.url}/api/ai/queue", json=edit, timeout=30)
                answer.raise_for_status()
                ids.append(answer.json()["generations"][0]["generation_id"])
        found = [http.get(f"{stack.url}/api/ai/queue/{id_}?wait=60", timeout=90).json() for id_ in ids]
    stopping.set()
    manager.join()
    fleet.end()
    lost = [one for one in found if one["status"] != "succeeded"]
    if lost:
        raise RuntimeError(f"{len(lost)} edits did not succeed: {lost[0]}")
    waits = [one["timings"]["queue_ms"] for one in found]
    return Day(waits, sum(one["attempts"] > 1 for one in found), fleet.worker_s, fleet.most, fleet.started)


def scaled(rules: scaler.Rules, prometheus: scaler.Prometheus) -> Callable[[], int]:
    """What the rules say, each time it is asked."""
    active_at = -math.inf
    recent: list[tuple[float, int]] = []

    def decide() -> int:
        nonlocal active_at
        now, values = time.monotonic(), prometheus.values(rules)
        if any(value > 0 for value in values):
            active_at = now
        if now - active_at > rules.cooldown_s:
            return 0
        recent.append((now, max(1, rules.wanted(values))))
        # Down only to what was needed at some time within the window.
        recent[:] = [one for one in recent if now - one[0] <= rules.cooldown_s]
        return max(count for _, count in recent)

    return decide


def told(name: str, day: Day) -> None:
    edits = len(day.waits_ms)
    percentiles = statistics.quantiles(day.waits_ms, n=100, method="inclusive")
    busy_s = edits * EDIT_S
    print(
        f"{name:8} {edits} edits, {day.again} with a second attempt; up to {day.most} workers, {day.starts} starts; "
        f"{day.worker_s:.0f} worker-seconds, idle {day.worker_s - busy_s:.0f} ({1 - busy_s / day.worker_s:.0%}); "
        f"waits p50 {percentiles[49]:.0f}, p95 {percentiles[94]:.0f}, most {max(day.waits_ms)} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180, help="that a day takes")
    asked = parser.parse_args()
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("bench.scaling: needs Prometheus: apt-get install prometheus")
    rules, image = scaler.rules(WORKER), photograph()
    with tempfile.TemporaryDirectory() as name:
        catalog = Path(name) / "catalog.toml"
        catalog.write_text(CATALOG)
        shipped = Path(embedded.__file__).parent / "catalog.embedded.toml"
        environment = {
            **os.environ, "DARKROOM_PORT": "0", "DARKROOM_DATA_DIR": str(Path(name) / "data"),
            "DARKROOM_CATALOG": f"{shipped}:{catalog}", "DARKROOM_METRICS_PORT": "0", "DARKROOM_WEIGHTS_DIR": name,
            "DARKROOM_MODELS": '["sleep-200"]',
        }  # fmt: skip
        options = dataclasses.replace(stack_options.Options.from_environment(environment), workers=0)
        with embedded.running(options) as stack:
            log = stack.children["housekeeping"].log_file.read_text()
            (target,) = set(re.findall(r"metrics on http://([^/]+)/", log))
            with scaler.scraping(program, stack_options.free_port(), target) as prometheus:
                while not prometheus.value("count(darkroom_generations) or vector(0)"):
                    time.sleep(LOOK_S)
                told("scaled", live(stack, asked.seconds, scaled(rules, prometheus), image))
            told("fixed", live(stack, asked.seconds, lambda: MOST, image))


if __name__ == "__main__":
    main()
