"""`make bench-connections`: an ordinary client's polls alone, and beside idle connections and slow senders, in one run."""

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from urllib.parse import urlsplit

import aiohttp
import psutil

from bench.overhead import stacks
from bench.overhead.__main__ import photograph
from infra import embedded

DRIP_S = 0.5


async def polls(stack: embedded.Stack, id_: str, count: int) -> list[float]:
    """How long each takes, in ms."""
    taken = []
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with aiohttp.ClientSession(stack.url, headers=headers) as http:
        for _ in range(count):
            began = time.perf_counter()
            async with http.get(f"/api/ai/queue/{id_}") as answer:
                assert answer.status == 200, await answer.text()
                await answer.read()
            taken.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.005)
    return taken


async def hold(url: str, idle: int, slow: int) -> None:
    """Keep connections open after a request, and send heads and bodies a byte at a time on others, anew when they are cut off."""
    parts = urlsplit(url)
    held = []
    for _ in range(idle):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b'{"status":"live"}')
        held.append((reader, writer))

    async def drip(number: int) -> None:
        head = (
            b"POST /api/ai/queue HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
        )
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port)
                writer.write(head if number % 2 else head[:20])
                while not writer.is_closing():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(DRIP_S)

    dripping = [asyncio.create_task(drip(number)) for number in range(slow)]
    print("held", flush=True)
    await asyncio.gather(*dripping, asyncio.sleep(3600))


def told(name: str, taken: list[float]) -> tuple[float, float]:
    percentiles = statistics.quantiles(taken, n=100, method="inclusive")
    print(
        f"{name}: p50 {percentiles[49]:.1f} ms, p99 {percentiles[98]:.1f} ms, most {max(taken):.1f} ms, {len(taken)} polls"
    )
    return percentiles[49], percentiles[98]


async def measure(stack: embedded.Stack, idle: int, slow: int, count: int) -> None:
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    body = {"model": "sleep-20", "prompt": "x", "input_image": photograph()}
    async with (
        aiohttp.ClientSession(stack.url, headers=headers) as http,
        http.post("/api/ai/queue", json=body) as answer,
    ):
        id_ = (await answer.json())["generations"][0]["generation_id"]
    api = psutil.Process(stack.children["api"].pid)
    alone = told("alone", await polls(stack, id_, count))
    before = api.memory_info().rss
    command = [sys.executable, "-m", "bench.connections", "--hold", stack.url, "--idle", str(idle), "--slow", str(slow)]
    holder = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert holder.stdout is not None, "asked for"
    await holder.stdout.readline()
    opened = _open(api)
    memory = (api.memory_info().rss - before) / 1024 / opened
    beside = told(f"beside {idle} idle and {slow} slow ones", await polls(stack, id_, count))
    left = _open(api)
    holder.terminate()
    await holder.wait()
    print(f"p50 {beside[0] / alone[0]:.2f} times, p99 {beside[1] / alone[1]:.2f} times as long")
    print(f"{opened} connections open before these polls, {left} after; {memory:.0f} KiB each")


def _open(process: psutil.Process) -> int:
    return sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=400)
    parser.add_argument("--polls", type=int, default=2000)
    parser.add_argument("--hold", metavar="URL", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.hold:
        asyncio.run(hold(asked.hold, asked.idle, asked.slow))
        return
    with stacks.sleeping(DARKROOM_MAX_CONNECTIONS=str(asked.idle + 2 * asked.slow)) as stack:
        asyncio.run(measure(stack, asked.idle, asked.slow, asked.polls))


if __name__ == "__main__":
    main()
