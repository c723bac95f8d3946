"""`make bench-fleet`: one run, a paragraph for each question. Pipelines only sleep; everything else is real."""

import argparse
import concurrent.futures
import contextlib
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from darkroom.probe import PICTURE
from darkroom.synchronous import Client
from infra import embedded, stack_options
from infra.children import Child
from storage import connections
from storage.contracts import edits, submissions
from storage.ledger import call, claims, records, recovery
from storage.ledger.execution import RedisLedger

HERE = Path(__file__).parent
CATALOG = f"{Path(embedded.__file__).parent / 'catalog.embedded.toml'}:{HERE / 'catalog.toml'}"
KEYS = '{"alice": "key-of-alice-for-measuring", "bob": "key-of-bob-for-measuring"}'


@contextlib.contextmanager
def running(models: str, **more: str) -> Iterator[embedded.Stack]:
    """A stack of its own whose worker serves these models."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "REDIS_", "S3_"))
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = {"DARKROOM_PORT": "0", "DARKROOM_DATA_DIR": folder, "DARKROOM_API_KEYS": KEYS}
        environment = {**inherited, **settings, "DARKROOM_CATALOG": CATALOG, "DARKROOM_MODELS": models, **more}
        with embedded.running(stack_options.Options.from_environment(environment)) as stack:
            yield stack


@contextlib.contextmanager
def joined(stack: embedded.Stack, gpu_type: str, region: str, models: str) -> Iterator[None]:
    """One more worker on the same stores that says it has another GPU."""
    environment = {
        **stack.children["worker-1"].environment,
        "DARKROOM_GPU_TYPE": gpu_type,
        "DARKROOM_REGION": region,
        "DARKROOM_MODELS": models,
        "DARKROOM_PRELOAD": models,
    }
    log_file = stack.children["worker-1"].log_file.with_name(f"{gpu_type}.log")
    child = Child(gpu_type, [sys.executable, "-m", "workers.gpu"], environment, log_file)
    with client(stack) as service:
        while not any(one["gpu_type"] == gpu_type for one in service.fleet()):
            time.sleep(0.2)
    try:
        yield
    finally:
        child.stop()


def client(stack: embedded.Stack, tenant: str = "alice") -> Client:
    """A client for one of the two tenants."""
    return Client(stack.url, f"key-of-{tenant}-for-measuring")


def finished(service: Client, id_: str) -> Mapping[str, object]:
    """A generation once it is over."""
    return service.wait(id_).raw


def makespan(count: int) -> str:
    """Unpinned work over two GPU types, against the best that could be done; pinned work between it."""
    models = '["paced"]'
    with contextlib.ExitStack() as opened:
        stack = opened.enter_context(running(models, DARKROOM_PRELOAD=models))
        opened.enter_context(joined(stack, "h100", "eu-north1", models))
        service = opened.enter_context(client(stack))
        for gpu_type in ("cpu", "h100"):
            finished(service, service.enqueue(PICTURE, "x", model="paced", gpu_type=gpu_type).ids[0])
        began = time.monotonic()
        ids = [service.enqueue(PICTURE, "x", model="paced").ids[0] for _ in range(count)]
        found = [finished(service, id_) for id_ in ids]
        took = time.monotonic() - began
        pinned = [
            (gpu_type, service.enqueue(PICTURE, "x", model="paced", gpu_type=gpu_type).ids[0])
            for gpu_type in ("cpu", "h100") * 10
        ]
        elsewhere = sum(finished(service, id_)["ran_on"]["gpu_type"] != gpu_type for gpu_type, id_ in pinned)  # type: ignore[index]
    slow, quick = 1.8, 0.6
    best = min(max(n * slow, (count - n) * quick) for n in range(count + 1))
    shares = [sum(one["ran_on"]["gpu_type"] == gpu_type for one in found) for gpu_type in ("cpu", "h100")]  # type: ignore[index]
    return (
        f"{count} unpinned edits over two GPU types (1.8 s and 0.6 s each): {took:.1f} s, at the best {best:.1f} s, ratio "
        f"{took / best:.3f}; {shares[0]} and {shares[1]} ran on each. Of 20 pinned ones {elsewhere} ran elsewhere."
    )


def loads(count: int) -> str:
    """Two models that do not fit together, asked for in turn."""
    with running('["first", "second"]') as stack:
        with client(stack) as service:
            ids = [
                service.enqueue(PICTURE, "x", model=model).ids[0]
                for _ in range(count // 2)
                for model in ("first", "second")
            ]
            found = [finished(service, id_) for id_ in ids]
        log = (stack.options.data_dir / "logs" / "worker-1.log").read_text()
    waits = [float(str(one["delay_ms"])) / 1000 for one in found]
    return (
        f"{count} edits of two models in turn, 5 s to load, one fits at a time: {log.count(' loaded in ')} loads, first come "
        f"first served would take {count}; the longest wait was {max(waits):.1f} s."
    )


def fairness(count: int) -> str:
    """One tenant queues many, another then sends one."""
    models = '["paced"]'
    with running(models, DARKROOM_PRELOAD=models) as stack, client(stack) as service, client(stack, "bob") as other:
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: service.enqueue(PICTURE, "x", model="paced"), range(count)))
        id_ = other.enqueue(PICTURE, "x", model="paced").ids[0]
        waited = float(str(finished(other, id_)["delay_ms"])) / 1000
    return f"With {count} queued by one tenant, another's one started after {waited:.2f} s: {waited / 1.8:.2f} edits' time."


def estimates(count: int) -> str:
    """Mixed sizes and steps: what was expected against what then happened."""
    chance = Random(3)  # noqa: S311  (no secret)
    errors_, inside, scaled = [], 0, 0
    with running('["varied"]', DARKROOM_PRELOAD='["varied"]') as stack, client(stack) as service:
        for number in range(count + 30):
            steps = chance.choice((8, 12, 20, 28))
            side = chance.choice((128, 192, 256))
            asked: dict[str, Any] = {"num_inference_steps": steps, "width": side, "height": side}
            (expected,) = service.estimates("varied", gpu_type="cpu", references=1, **asked)
            found = finished(service, service.enqueue(PICTURE, "x", model="varied", **asked).ids[0])
            actual = float(str(found["execution_ms"]))
            if number >= 30 and expected["warm_ms"]:
                errors_.append(abs(expected["warm_ms"]["p50"] - actual) / actual)
                inside += expected["warm_ms"]["p10"] <= actual <= expected["warm_ms"]["p90"]
                scaled += not expected["is_measured"]
    return (
        f"{len(errors_)} mixed runs: the expected p50 was off by {100 * statistics.median(errors_):.1f} % in the middle, and "
        f"{100 * inside / len(errors_):.1f} % fell within the range from p10 to p90 ({scaled} estimates were scaled)."
    )


def depth(long: int) -> str:
    """Claim, poll and acceptance with a long queue against a short one."""
    with running('["paced"]') as stack, contextlib.closing(connections.connect(stack.store)) as connection:
        connection.select(5)
        ledger = RedisLedger(connection)
        short = _costs(ledger, 10)
        before = connection.info("memory")["used_memory"]
        for _ in range(long - 10):
            ledger.run(_creation())
        after = connection.info("memory")["used_memory"]
        many = _costs(ledger, long)
        connection.flushdb()
    ratios = ", ".join(f"{name} {many[name] / short[name]:.2f}" for name in short)
    return (
        f"With {long} queued against 10, medians: {ratios} times as long "
        f"({', '.join(f'{name} {many[name] * 1000:.2f} ms' for name in many)}); {(after - before) / (long - 10):.0f} bytes of "
        f"Redis a queued generation."
    )


def _creation() -> call.Call[records.Created]:
    edit = edits.Edit(
        model="paced", prompt="make it black and white", references=(edits.StoredPicture(key=f"inputs/alice/{uuid.uuid4()}/0"),),
        steps=28, guidance=2.5, seed=1, output_format="webp", quality=80,
    )  # fmt: skip
    limits = records.Limits(max_active=10**7, max_queued=10**7, queue_ttl_s=86_400, execution_limit_s=600)
    submission = submissions.Submission(edit=edit, echo={"aspect_ratio": "1:1"})
    return records.create(
        submission, tenant="alice", ids=[str(uuid.uuid4())], queue="edits.paced.any", limits=limits, month="2026-11"
    )


def _costs(ledger: RedisLedger, queued: int) -> dict[str, float]:
    """Seconds of each call in the middle of two hundred, with so many queued."""
    connection_free: dict[str, list[float]] = {"accept": [], "claim": [], "poll": []}
    while (row := next(iter(ledger.run(recovery.backlog())), None)) is None or row.pending < queued:
        ledger.run(_creation())

    def timed(name: str, call: Callable[[], object]) -> object:
        began = time.perf_counter()
        found = call()
        connection_free[name].append(time.perf_counter() - began)
        return found

    for _ in range(200):
        receipt = timed("accept", lambda: ledger.run(_creation()))
        id_ = receipt.ids[0]  # type: ignore[attr-defined]
        timed("poll", lambda id_=id_: ledger.run(records.read(id_, "alice")))  # type: ignore[misc]
        claim = timed(
            "claim", lambda: ledger.run(claims.claim(claims.Claimant(worker="w"), 60_000, ["edits.paced.any"]))
        )
        ledger.run(records.cancel(claim.id, "alice"))  # type: ignore[attr-defined]
    return {name: statistics.median(times) for name, times in connection_free.items()}


QUESTIONS: dict[str, Callable[[int], str]] = {
    "makespan": makespan, "loads": loads, "fairness": fairness, "estimates": estimates, "depth": depth,
}  # fmt: skip
COUNTS = {"makespan": 100, "loads": 100, "fairness": 1000, "estimates": 500, "depth": 100_000}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.fleet", description=__doc__)
    parser.add_argument("questions", nargs="*", choices=[*QUESTIONS, []], help="default: all")
    for name in parser.parse_args().questions or QUESTIONS:
        print(f"{name}: {QUESTIONS[name](COUNTS[name])}", flush=True)


if __name__ == "__main__":
    main()
