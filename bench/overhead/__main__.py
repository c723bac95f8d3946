"""`make bench-overhead`: both services, both pipelines, one run, one table.

Everything runs on this machine at once, load generator included; on two cores the figures say how the services compare,
not how fast either could be.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.overhead import clients
from infra import demo, embedded, stack_options
from infra.children import Child

BURST, CONNECTIONS = 300, 32


@dataclass(frozen=True)
class Row:
    """What was seen of one service with one pipeline."""

    service: str
    pipeline: str
    alone_ms: Sequence[float]
    overhead_ms: Sequence[float]
    burst_ms: Sequence[float]
    jobs_per_s: float
    loop_per_s: float

    def text(self) -> str:
        cells = [
            f"{_percentile(v, 50):7.1f} /{_percentile(v, 99):7.1f}"
            for v in (self.alone_ms, self.burst_ms, self.overhead_ms)
        ]
        rate = f"{self.jobs_per_s:7.2f} / {self.loop_per_s:6.2f} = {self.jobs_per_s / self.loop_per_s:.2f}"
        return f"| {self.pipeline:<16} | {self.service:<8} | {' | '.join(cells)} | {rate} |"


HEAD = """
| pipeline         | service  | ack alone, ms    | ack in burst, ms | overhead, ms     | jobs/s / bare loop      |
|                  |          |    p50 /    p99  |    p50 /    p99  |    p50 /    p99  |                         |
|------------------|----------|------------------|------------------|------------------|-------------------------|"""


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def photograph() -> str:
    """The sample photograph at 256x256 as a data URI of some ten kilobytes."""
    buffer = io.BytesIO()
    Image.open(demo.PHOTOGRAPH).resize((256, 256)).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


async def alone(service: clients.Service, model: str, image: str, count: int) -> tuple[list[float], list[float]]:
    """One edit at a time: milliseconds to acknowledgement, and from asking to being told less the pipeline's own."""
    acknowledged, overhead = [], []
    for _ in range(count):
        began = time.perf_counter()
        id_ = await service.enqueue(model, image)
        acknowledged.append((time.perf_counter() - began) * 1000)
        told, execution_ms = await service.completed(id_)
        overhead.append((told - began) * 1000 - execution_ms)
    return acknowledged, overhead


async def burst(service: clients.Service, model: str, image: str, count: int) -> tuple[list[float], float]:
    """Many edits at once: milliseconds to each acknowledgement, and edits a second until all are told."""
    room = asyncio.Semaphore(CONNECTIONS)

    async def one() -> tuple[float, str]:
        async with room:
            began = time.perf_counter()
            id_ = await service.enqueue(model, image)
            return (time.perf_counter() - began) * 1000, id_

    began = time.perf_counter()
    answers = await asyncio.gather(*(one() for _ in range(count)))
    told = await asyncio.gather(*(service.completed(id_) for _, id_ in answers))
    return [ms for ms, _ in answers], count / (max(at for at, _ in told) - began)


def bare_loop(model: str, image: str, count: int) -> float:
    """Edits a second of the pipeline alone, in this process."""
    from bench.overhead import pipelines

    picture = Image.open(io.BytesIO(base64.b64decode(image.partition(",")[2]))).convert("RGB")
    pipelines.edit(model, picture, "x")
    began = time.perf_counter()
    for _ in range(count):
        pipelines.edit(model, picture, "x")
    return count / (time.perf_counter() - began)


async def measure(
    name: str, service: clients.Service, model: str, image: str, rounds: tuple[int, int], loop: float
) -> Row:
    await alone(service, model, image, 5)
    acknowledged, overhead = await alone(service, model, image, rounds[0])
    in_burst, rate = await burst(service, model, image, rounds[1])
    return Row(name, model, acknowledged, overhead, in_burst, rate, loop)


@dataclass(frozen=True)
class NaiveService:
    """The running peer."""

    url: str
    api: Child
    worker: Child


@contextlib.contextmanager
def naive_service(environment: dict[str, str], folder: Path) -> Iterator[NaiveService]:
    """The peer's API and worker, on the same Valkey in a database of its own."""
    (folder / "edits").mkdir()
    port = stack_options.free_port()
    own = {
        **environment,
        "NAIVE_REDIS_URL": environment["REDIS_URL"].removesuffix("/0") + "/3",
        "NAIVE_FOLDER": str(folder / "edits"),
    }
    api = [sys.executable, "-m", "uvicorn", "bench.overhead.naive:api", "--port", str(port), "--no-access-log"]
    worker = [sys.executable, "-m", "celery", "-A", "bench.overhead.naive:tasks", "worker", "-P", "solo"]
    worker += ["--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    children = [
        Child("naive-api", api, own, folder / "api.log"),
        Child("naive-worker", worker, own, folder / "worker.log"),
    ]
    try:
        while True:
            with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"http://127.0.0.1:{port}/docs"):
                break
            time.sleep(0.1)
        yield NaiveService(f"http://127.0.0.1:{port}", *children)
    finally:
        for child in children:
            child.stop()


async def run(stack: embedded.Stack, naive_url: str, rounds: dict[str, tuple[int, int]]) -> list[Row]:
    image = photograph()
    rows = []
    async with clients.naive(naive_url) as naive, clients.darkroom(stack.url, stack.api_key or "") as darkroom:
        for model, counts in rounds.items():
            loop = await asyncio.to_thread(bare_loop, model, image, max(20, counts[1] // 3))
            for name, service in (("naive", naive), ("darkroom", darkroom)):
                print(f"measuring {name} with {model} …", file=sys.stderr, flush=True)
                rows.append(await measure(name, service, model, image, counts, loop))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds, to see that it works")
    parser.add_argument("--pipeline", choices=("sleep-20", "flux-kontext-dev"), help="this one alone")
    arguments = parser.parse_args()
    share = 5 if arguments.quick else 1
    rounds = {"sleep-20": (200 // share, BURST // share), "flux-kontext-dev": (60 // share, 60 // share)}
    if arguments.pipeline:
        rounds = {arguments.pipeline: rounds[arguments.pipeline]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shipped = Path(embedded.__file__).parent / "catalog.embedded.toml"
        os.environ["DARKROOM_CATALOG"] = f"{shipped}:{Path(__file__).parent / 'catalog.toml'}"
        os.environ |= {"DARKROOM_PORT": "0", "DARKROOM_DATA_DIR": str(folder / "stack")}
        with embedded.running(stack_options.Options.from_environment(os.environ)) as stack:
            os.environ["DARKROOM_WEIGHTS_DIR"] = str(folder / "stack" / "weights")
            # The same for the peer and the loop as for the worker.
            os.environ["GOMP_SPINCOUNT"] = stack.children["worker-1"].environment["GOMP_SPINCOUNT"]
            environment = {**os.environ, "REDIS_URL": stack.store.redis_url.get_secret_value(), "HF_HUB_OFFLINE": "1"}
            with naive_service(environment, folder) as service:
                rows = asyncio.run(run(stack, service.url, rounds))
    print(HEAD)
    for row in rows:
        print(row.text())


if __name__ == "__main__":
    main()
