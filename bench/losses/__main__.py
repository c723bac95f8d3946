"""`make bench-losses`: load on the naive service while its worker and its Redis are killed; then what never ended is counted.

The oracle of `tests/faults` asks Darkroom the same question: of all that was acknowledged, what has no result?
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import aiohttp

from bench.overhead import clients
from bench.overhead.__main__ import naive_service, photograph
from infra import embedded, premises
from infra.children import Child

PATIENCE_S = 60.0


async def submit(url: str, seconds: float) -> list[str]:
    """Ids of everything acknowledged."""
    image, ids = photograph(), []
    async with clients.naive(url) as service:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(aiohttp.ClientError, KeyError):
                ids.append(await service.enqueue("sleep-20", image))
            await asyncio.sleep(0.1)
    return ids


async def finished(url: str, ids: list[str]) -> int:
    """How many are told to have ended within the time anybody would wait."""
    async with clients.naive(url) as service:

        async def one(id_: str) -> bool:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await service.completed(id_)
                    return True
            return False

        return sum(await asyncio.gather(*(one(id_) for id_ in ids)))


def injure(children: list[Child], until: float, pause_s: float) -> int:
    """Kill one of them now and then, and start it again."""
    chance, kills = random.Random(1), 0  # noqa: S311
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.5, 1.5) * pause_s)
        os.kill(chance.choice(children).pid, signal.SIGKILL)
        kills += 1
        time.sleep(0.5)
        for child in children:
            child.restart_if_dead()
    return kills


async def run(url: str, victims: list[Child], seconds: float, pause_s: float) -> None:
    injuring = asyncio.create_task(asyncio.to_thread(injure, victims, time.monotonic() + seconds, pause_s))
    ids = await submit(url, seconds)
    kills = await injuring
    ended = await finished(url, ids)
    print(
        f"naive service: {len(ids)} edits acknowledged, {kills} processes killed, {len(ids) - ended} edits never ended"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=5, help="seconds between kills, on average")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shipped = Path(embedded.__file__).parent / "catalog.embedded.toml"
        catalog = f"{shipped}:{Path(__file__).parents[1] / 'overhead' / 'catalog.toml'}"
        os.environ |= {"DARKROOM_PORT": "0", "DARKROOM_DATA_DIR": str(folder / "stack"), "DARKROOM_CATALOG": catalog}
        with embedded.running(premises.Options.from_environment(os.environ)) as stack:
            weights = str(folder / "stack" / "weights")
            redis_url = stack.store.redis_url.get_secret_value()
            environment = {**os.environ, "REDIS_URL": redis_url, "DARKROOM_WEIGHTS_DIR": weights, "HF_HUB_OFFLINE": "1"}
            with naive_service(environment, folder) as service:
                victims = [service.worker, stack.children["valkey"]]
                asyncio.run(run(service.url, victims, asked.seconds, asked.pause))


if __name__ == "__main__":
    main()
