"""`make bench-subscribers`: delay from the ledger's clock to the subscriber, and memory of the API per stream."""

import argparse
import asyncio
import contextlib
import statistics
import time

import aiohttp
import psutil

from bench.overhead import stacks
from bench.overhead.__main__ import photograph
from infra import embedded

AT_ONCE = 50
"""Streams that are opened at a time."""


async def subscribe(http: aiohttp.ClientSession, delays: list[float], ready: asyncio.Semaphore) -> None:
    """Note how long after its cursor's time each event arrives, in ms."""
    async with http.get("/api/events", timeout=aiohttp.ClientTimeout(None)) as answer:
        assert answer.status == 200, await answer.text()
        cursor, greeted = "", False
        async for line in answer.content:
            if line.startswith(b"id: "):
                cursor = line[4:].decode().partition("-")[0]
            elif line.startswith(b"data: "):
                if greeted:
                    delays.append(time.time() * 1000 - int(cursor))
                else:
                    greeted = True
                    ready.release()


async def run(stack: embedded.Stack, streams: int, edits: int, pause_s: float) -> None:
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    api = psutil.Process(stack.children["api"].pid)
    before = api.memory_info().rss
    delays: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(stack.url, headers=headers, connector=connector) as http:
        ready = asyncio.Semaphore(0)
        tasks: list[asyncio.Task[None]] = []
        while len(tasks) < streams:
            # A few at a time: each reads the log first, and one that has to wait for that too long is to come again.
            some = min(AT_ONCE, streams - len(tasks))
            tasks += [asyncio.create_task(subscribe(http, delays, ready)) for _ in range(some)]
            for _ in range(some):
                await ready.acquire()
        memory = (api.memory_info().rss - before) / streams / 1024
        image = photograph()
        for _ in range(edits):
            body = {"model": "sleep-20", "prompt": "x", "input_image": image}
            async with http.post("/api/ai/queue", json=body) as answer:
                assert answer.status == 200
            await asyncio.sleep(pause_s)
        # What is on its way still is waited for.
        arrived = -1
        while len(delays) > arrived:
            arrived = len(delays)
            await asyncio.sleep(3)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
    # queued, started and completed; progress comes when a step falls into its tenth of a second
    assert len(delays) >= streams * edits * 3, f"{len(delays)} deliveries"
    percentiles = statistics.quantiles(delays, n=100, method="inclusive")
    print(f"{streams} streams, {edits} edits, {len(delays)} deliveries, none missing")
    print(f"delay p50 {percentiles[49]:.0f} ms, p99 {percentiles[98]:.0f} ms, most {max(delays):.0f} ms")
    print(f"memory of the API: {memory:.0f} KiB a stream")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--pause", type=float, default=2, help="seconds between edits")
    asked = parser.parse_args()
    room = str(asked.streams + 100)
    names = ("DARKROOM_MAX_STREAMS_PER_TENANT", "DARKROOM_MAX_STREAMS", "DARKROOM_MAX_CONNECTIONS")
    with stacks.sleeping(**dict.fromkeys(names, room)) as stack:
        asyncio.run(run(stack, asked.streams, asked.edits, asked.pause))


if __name__ == "__main__":
    main()
