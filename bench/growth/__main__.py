"""`make bench-growth`: the same calls at ten, ten thousand and a million finished generations, and beside one that floods.

The ledger's scripts on a real Valkey (`appendfsync always`), and a real S3 server. The archive's index is filled with what the
script of the service writes; of the million only those that are read have objects.
"""

import argparse
import asyncio
import contextlib
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, TypeVar

import redis

from api.service.archive import Archive
from api.service.objects import AsyncObjects
from bench.overhead import stacks
from storage import connections, keys
from storage.contracts import edits, results, samples, submissions
from storage.ledger import archive, call, claims, records, recovery
from storage.ledger.archive import lapses
from storage.ledger.execution import RedisLedger
from storage.ledger.records import lists
from storage.objects import Objects
from workers.archiving import Archiver

T = TypeVar("T")

DATABASE = 5
QUEUE = "edits.paced.any"
TARGET = samples.Target(model="paced", gpu_type="cpu", region="local")
SAMPLE = samples.Sample(at_ms=1, outcome="succeeded", pixels=4096, steps=28, references=1, execute_ms=20)
LIMITS = records.Limits(max_active=10**7, max_queued=10**7, queue_ttl_s=86_400, execution_limit_s=600)
AT_A_TIME = 10_000


class Ledger:
    """A ledger in a database of its own, for both sides."""

    def __init__(self, connection: redis.Redis) -> None:
        self.connection = connection
        self._ledger = RedisLedger(connection)

    def run(self, call: call.Call[T]) -> T:
        return self._ledger.run(call)

    def accept(self, tenant: str) -> str:
        """One edit by a reference that is stored."""
        prefix = f"inputs/{tenant}/{uuid.uuid4()}/"
        edit = edits.Edit(
            model="paced", prompt="make it black and white", references=(edits.StoredPicture(key=f"{prefix}0"),),
            steps=28, guidance=2.5, seed=1, output_format="webp", quality=80,
        )  # fmt: skip
        submission = submissions.Submission(edit=edit, echo={"aspect_ratio": "1:1"})
        named: dict[str, Any] = {"limits": LIMITS, "month": "2026-11", "inputs_prefix": prefix}
        return self.run(records.create(submission, tenant=tenant, ids=[str(uuid.uuid4())], queue=QUEUE, **named)).ids[0]

    def claim(self) -> Any:
        return self.run(claims.claim(claims.Claimant(worker="w"), 60_000, [QUEUE]))

    def finish(self, claim: Any) -> None:
        result = results.Result(
            key=claim.result_key, content_type="image/webp", width=64, height=64, size_bytes=9, fit="", execution_ms=20
        )
        assert self.run(claims.finish(claim, result, TARGET, SAMPLE))

    def settle(self) -> None:
        """Until Valkey has rewritten its append-only file, as it does after so many were added at once."""
        while True:
            told: Any = self.connection.info("persistence")
            if not (told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"]):
                return
            time.sleep(0.1)

    def bytes(self) -> int:
        """What Redis' data takes."""
        return int(self.connection.info("memory")["used_memory"])


class Async:
    """The same for coroutines."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def run(self, call: call.Call[T]) -> T:
        return self._ledger.run(call)


@contextlib.contextmanager
def opened() -> Iterator[tuple[Ledger, Objects]]:
    """Stores of this run's own."""
    with (
        stacks.sleeping() as stack,
        contextlib.closing(connections.connect(stack.store)) as connection,
        contextlib.closing(Objects(stack.store)) as objects,
    ):
        connection.select(DATABASE)
        yield Ledger(connection), objects


def fill(ledger: Ledger, count: int, tenants: int) -> None:
    """Put finished generations of so many tenants into the archive's index, as `archived` does."""
    script = ledger.connection.register_script(
        f"{keys.prelude()}{_shared()}\nfor i = 3, #ARGV do\n"
        "  local tenant = ARGV[1] .. (i % tonumber(ARGV[2]))\n"
        "  local record = { id = ARGV[i], tenant = tenant, status = 'succeeded', model = 'paced', namespace = tenant }\n"
        "  local entry = archive_entry(record, now_ms() + 8 * DAY_MS)\n"
        "  redis.call('ZADD', KEY.archive .. tenant, redis.call('INCR', KEY.sequence), entry)\n"
        "  redis.call('EXPIRE', KEY.archive .. tenant, LIFE.history)\nend"
    )
    for start in range(0, count, AT_A_TIME // 2):
        size = min(AT_A_TIME // 2, count - start)
        script(args=["t", tenants, *(str(uuid.uuid4()) for _ in range(size))])
        # Two lists for each hundred.
        due = time.time() * 1000 + 8 * 86_400_000
        for _ in range(size // archive.AT_A_TIME * 2):
            ledger.connection.zadd(keys.EXPIRING, {f"{lapses.LISTS}{uuid.uuid4()}.json": due})


def _shared() -> str:
    from storage.ledger import execution

    return (execution._FOLDER / "_shared.lua").read_text()


def costs(ledger: Ledger, objects: Objects, rounds: int, times: dict[str, list[float]]) -> None:
    """Note the milliseconds of each step, so many times, one after another as a service has them."""
    service = Archive(Async(ledger), AsyncObjects(objects), max_bytes=None)
    archiver = Archiver(ledger, objects, after_s=1e-9)

    def timed(name: str, step: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = step()
        times.setdefault(name, []).append((time.perf_counter() - began) * 1000)
        return result

    def listed() -> lists.Page:
        named: dict[str, Any] = {"matching": {}, "below": None, "limit": 50, "active_only": False}
        return ledger.run(lists.list_("t0", **named))

    def swept() -> None:
        ledger.run(recovery.recover(lease_ms=10_000, stall_ms=10**9, max_attempts=3, max_losses=2))
        ledger.run(recovery.wake())
        ledger.run(recovery.backlog())
        ledger.run(archive.archivable(after_s=600, gather_s=600, lists=()))

    for _ in range(rounds):
        id_ = timed("accept", lambda: ledger.accept("t0"))
        timed("poll", lambda id_=id_: ledger.run(records.read(id_, "t0")))  # type: ignore[misc]
        claim = timed("claim", ledger.claim)
        timed("finish", lambda claim=claim: ledger.finish(claim))  # type: ignore[misc]
        timed("list of 50", listed)
        timed("sweep", swept)
        timed("archive one", archiver.move)
        archived = timed("poll, archived", lambda id_=id_: asyncio.run(service.find(id_, "t0")))  # type: ignore[misc]
        assert archived is not None


def told(name: str, before: list[float], after: list[float]) -> str:
    """How a step's times compare."""
    one, other = (statistics.quantiles(times, n=100, method="inclusive") for times in (before, after))
    return (
        f"{name:16} p50 {one[49]:6.2f} {other[49]:6.2f} ms ({other[49] / one[49]:.2f})   "
        f"p99 {one[98]:6.2f} {other[98]:6.2f} ms ({other[98] / one[98]:.2f})"
    )


def finished(counts: list[int], rounds: int) -> None:
    """At so many finished generations, all of one tenant's: a service for each count, whose turn it is by rounds."""
    with contextlib.ExitStack() as cleanup:
        services = [cleanup.enter_context(opened()) for _ in counts]
        sizes = []
        for count, (ledger, objects) in zip(counts, services, strict=True):
            costs(ledger, objects, rounds // 4, {})
            empty = ledger.bytes()
            fill(ledger, count, 1)
            ledger.settle()
            sizes.append((ledger.bytes(), (ledger.bytes() - empty) / count))
        times: list[dict[str, list[float]]] = [{} for _ in counts]
        for _ in range(rounds):
            for (ledger, objects), own in zip(services, times, strict=True):
                costs(ledger, objects, 1, own)
        for count, (size, each), own in zip(counts, sizes, times, strict=True):
            print(f"\n{count} finished: {size / 2**20:.0f} MiB of Redis, {each:.0f} bytes for each")
            for name in own:
                print(told(name, times[0][name], own[name]))


def flood(queued: int, tenants: int, rounds: int) -> None:
    """What others notice of one tenant that has very many queued."""
    with opened() as (ledger, _):
        chance = Random(1)  # noqa: S311  (no secret)
        results_: list[dict[str, list[float]]] = []
        for flooding in (0, queued):
            for _ in range(flooding):
                ledger.accept("flood")
            times: dict[str, list[float]] = {"accept": [], "poll": [], "claim": [], "claims until served": []}
            for _ in range(rounds):
                tenant = f"t{chance.randrange(tenants)}"
                began = time.perf_counter()
                id_ = ledger.accept(tenant)
                accepted = time.perf_counter()
                ledger.run(records.read(id_, tenant))
                polled = time.perf_counter()
                turns, claim = 0, None
                while claim is None or claim.id != id_:
                    at = time.perf_counter()
                    claim, turns = ledger.claim(), turns + 1
                    times["claim"].append((time.perf_counter() - at) * 1000)
                    ledger.finish(claim)
                times["accept"].append((accepted - began) * 1000)
                times["poll"].append((polled - accepted) * 1000)
                times["claims until served"].append(turns)
            results_.append(times)
        print(f"\n{tenants} tenants, alone and beside one with {queued} queued")
        for name in results_[0]:
            print(told(name, results_[0][name], results_[1][name]))
        ledger.connection.flushdb()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.growth", description=__doc__)
    parser.add_argument("--finished", type=int, nargs="*", default=[10, 10_000, 1_000_000])
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=500)
    asked = parser.parse_args()
    finished(asked.finished, asked.rounds)
    flood(asked.queued, asked.tenants, asked.rounds)


if __name__ == "__main__":
    main()
