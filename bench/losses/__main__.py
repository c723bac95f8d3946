"""`make bench-losses`: the oracle's faults on the naive service; then what never ended, and what ran twice, is counted.

The oracle of `tests/faults` asks Darkroom the same under the same faults: of all that was acknowledged, what has no result?
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from bench.overhead import clients
from bench.overhead.__main__ import NaiveService, naive_service, photograph
from infra import embedded, stack_options
from infra.children import Child
from tests.faults.oracle.injection import Injector
from tests.faults.oracle.proxy import Proxy

PATIENCE_S = 60.0


async def submit(url: str, seconds: float) -> list[str]:
    """Ids of everything acknowledged."""
    image, ids = photograph(), []
    async with clients.naive(url) as service:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(aiohttp.ClientError, KeyError, TimeoutError):
                async with asyncio.timeout(8):
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


def watch(children: list[Child], stopping: threading.Event) -> None:
    """Start again what dies, as the embedded stack does."""
    while not stopping.wait(0.2):
        for child in children:
            child.restart_if_dead()


def run(service: NaiveService, valkey: Child, redis: Proxy, seconds: float, pause_s: float) -> None:
    """Load and faults, then the count."""
    children = {"api": service.api, "worker-1": service.worker, "valkey": valkey}
    injector = Injector(children, redis, None, seed=1, pause_s=pause_s)
    stopping = threading.Event()
    watcher = threading.Thread(target=watch, args=[list(children.values()), stopping])
    injuring = threading.Thread(target=injector.run, args=[time.monotonic() + seconds, stopping])
    watcher.start()
    injuring.start()
    ids = asyncio.run(submit(service.url, seconds))
    injuring.join()
    ended = asyncio.run(finished(service.url, ids))
    stopping.set()
    watcher.join()
    faults = sum(injector.injected.values())
    print(f"naive service: {faults} faults of {len(injector.injected)} kinds", dict(sorted(injector.injected.items())))
    print(f"{len(ids)} edits acknowledged, {len(ids) - ended} never ended")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--pause", type=float, default=2.5, help="seconds between faults, on average")
    asked = parser.parse_args()
    with contextlib.ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        shipped = Path(embedded.__file__).parent / "catalog.embedded.toml"
        catalog = f"{shipped}:{Path(__file__).parents[1] / 'overhead' / 'catalog.toml'}"
        os.environ |= {"DARKROOM_PORT": "0", "DARKROOM_DATA_DIR": str(folder / "stack"), "DARKROOM_CATALOG": catalog}
        stack = cleanup.enter_context(embedded.running(stack_options.Options.from_environment(os.environ)))
        address = urlsplit(stack.store.redis_url.get_secret_value())
        proxy = cleanup.enter_context(contextlib.closing(Proxy(address.port or 6379)))
        through = address._replace(netloc=address.netloc.replace(str(address.port), str(proxy.port)))
        weights = str(folder / "stack" / "weights")
        environment = {
            **os.environ,
            "REDIS_URL": through.geturl(),
            "DARKROOM_WEIGHTS_DIR": weights,
            "HF_HUB_OFFLINE": "1",
        }
        service = cleanup.enter_context(naive_service(environment, folder))
        run(service, stack.children["valkey"], proxy, asked.seconds, asked.pause)


if __name__ == "__main__":
    main()
