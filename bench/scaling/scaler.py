"""The chart's scaling rules, asked of a real Prometheus as KEDA asks them, and what follows from the answers.

KEDA's and the autoscaler's own arithmetic: of each trigger as many replicas as its value needs at `threshold` each, the most of
all triggers counts, within the bounds; none when no trigger has been above zero for the cool-down.
"""

import contextlib
import itertools
import math
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import helm_python.chart
import requests
import yaml  # type: ignore[import-untyped]

CHART = Path(__file__).parents[2] / "infra" / "chart"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the chart renders for one kind of worker: queries with their thresholds, and bounds of replicas."""

    triggers: tuple[tuple[str, float], ...]
    least: int
    most: int
    cooldown_s: float

    def wanted(self, values: Sequence[float]) -> int:
        """Replicas for the triggers' values; whether it may be none is not looked at here."""
        needed = max(math.ceil(value / threshold) for value, (_, threshold) in zip(values, self.triggers, strict=True))
        return min(max(needed, self.least), self.most)


def rules(worker: Mapping[str, Any]) -> Rules:
    """Those of a worker, given as an entry of the chart's `workers`."""
    values = {"existingSecret": "x", "metrics": {"prometheusUrl": "http://x"}, "workers": {"one": dict(worker)}}
    files = helm_python.chart.Chart.load(CHART).render(values, name="bench", namespace="bench")
    manifests = itertools.chain.from_iterable(
        yaml.safe_load_all(text) for name, text in files.items() if name[-5:] == ".yaml"
    )
    (spec,) = [one["spec"] for one in manifests if one and one["kind"] == "ScaledObject"]
    return Rules(
        triggers=tuple((one["metadata"]["query"], float(one["metadata"]["threshold"])) for one in spec["triggers"]),
        least=spec["minReplicaCount"],
        most=spec["maxReplicaCount"],
        cooldown_s=spec["cooldownPeriod"],
    )


class Prometheus:
    """A running one."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def value(self, query: str) -> float:
        """Of a query whose answer is one number."""
        answer = requests.get(f"{self._url}/api/v1/query", params={"query": query}, timeout=10)
        answer.raise_for_status()
        (one,) = answer.json()["data"]["result"]
        return float(one["value"][1])

    def values(self, asked: Rules) -> list[float]:
        """Of all triggers."""
        return [self.value(query) for query, _ in asked.triggers]

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return requests.get(f"{self._url}/-/ready", timeout=2).status_code == 200
        except requests.ConnectionError:
            return False


@contextlib.contextmanager
def scraping(program: str, port: int, target: str) -> Iterator[Prometheus]:
    """Run Prometheus on a port; it reads the metrics of `host:port` every second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scrape = {"job_name": "darkroom", "static_configs": [{"targets": [target]}]}
        settings = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [scrape]}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        command = [
            program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            one, until = Prometheus(port), time.monotonic() + 30
            while not one.is_ready():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{program} does not start on port {port}")
                time.sleep(0.1)
            yield one
        finally:
            process.terminate()
            process.wait()
