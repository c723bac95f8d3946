"""`make bench-flood`: one key floods every route that records something; Redis' memory, and what another tenant notices.

The floods' processes run on the same processors, as an attacker's would not: at the lowest priority. How much of what the other
tenant notices is the machine's is told by the same flood at another service on it.
"""

import argparse
import base64
import contextlib
import dataclasses
import json
import multiprocessing
import secrets
import socket
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import redis
import requests

from bench.overhead import stacks
from bench.overhead.__main__ import photograph
from infra import embedded
from storage import connections
from storage.contracts import access
from storage.ledger import access as ledger_access
from storage.ledger.execution import RedisLedger

BUDGET = 16 * 2**20
"""Bytes of records that one tenant may have."""

LONG = "画" * 9_900
"""A prompt nearly as long as one may be, of characters of three bytes."""

FLOODS = (
    "submit and cancel", "refused late", "batches", "pictures that never come", "tokens", "uploads", "retries and reads",
    "idempotency keys",
)  # fmt: skip


Counted = Any
"""A queue of what kind of flood sent how often, how often it was taken, and how it was last refused."""


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers, as `host:port`."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listening, contextlib.ExitStack() as accepted:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.enter_context(listening.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield "{}:{}".format(*listening.getsockname())
        listening.shutdown(socket.SHUT_RDWR)


def flood(kind: str, url: str, key: str, image: str, silent: str, seconds: float, counted: Counted) -> None:
    """Send until the time is over; how many were sent, and how many were taken. `silent` is the `silent_server`."""
    sent = taken = 0
    refused = ""
    picture = base64.b64decode(image.partition(",")[2])
    edit = {"model": "sleep-20", "prompt": LONG, "input_image": image}
    until = time.monotonic() + seconds
    ids: list[str] = []
    with requests.Session() as http:
        http.headers["Authorization"] = f"Bearer {key}"

        def post(path: str, body: Any = None, **more: Any) -> requests.Response:
            return http.post(url + path, json=body, timeout=30, **more)

        def batch(picture_url: str, **changes: str) -> requests.Response:
            lines = ({**edit, "custom_id": str(n), "input_image": picture_url, **changes} for n in range(20))
            return http.post(
                f"{url}/api/ai/batches?name={'n' * 200}", timeout=30, data="\n".join(map(json.dumps, lines))
            )

        steps: dict[str, Callable[[], requests.Response]] = {
            "submit and cancel": lambda: post("/api/ai/queue", edit),
            "refused late": lambda: post("/api/ai/queue?validate=late", {**edit, "aspect_ratio": "no"}),
            "batches": lambda: batch("http://pictures.invalid/a.png"),
            "pictures that never come": lambda: batch(f"http://{silent}/a.png", prompt="x"),
            "tokens": lambda: post("/api/ai/tokens", {"purpose": "submit", "edits": 1}),
            "uploads": lambda: http.post(f"{url}/v1/files", files={"content": ("a.jpg", picture, "image/jpeg")}, timeout=30),
            "retries and reads": lambda: post(f"/api/ai/queue/{ids[-1] if ids else uuid.uuid4()}/retry"),
            "idempotency keys": lambda: post(
                "/api/ai/queue", {**edit, "prompt": "x"}, headers={"Idempotency-Key": secrets.token_hex(100)}
            ),
        }  # fmt: skip
        while time.monotonic() < until:
            answer = steps[kind]()
            sent += 1
            taken += answer.ok
            for one in answer.json().get("generations", ()) if answer.ok and "queue" in answer.url else ():
                ids.append(one["generation_id"])
                if kind != "retries and reads":
                    http.delete(f"{url}/api/ai/queue/{one['generation_id']}", timeout=30)
            if not answer.ok:
                refused = f"{answer.status_code} {answer.text[:160]}"
            if answer.status_code == 429:
                # As a hostile client does, which does not wait as long as it is told.
                time.sleep(0.01)
            if kind == "pictures that never come":
                time.sleep(0.3)
    counted.put((kind, sent, taken, refused))


def ordinary(url: str, key: str, image: str, seconds: float) -> dict[str, list[float]]:
    """What an ordinary tenant notices: milliseconds to be accepted, to poll, and until an edit of 20 ms is over."""
    times: dict[str, list[float]] = {"accept": [], "poll": [], "until over": []}
    until = time.monotonic() + seconds
    with requests.Session() as http:
        http.headers["Authorization"] = f"Bearer {key}"
        while time.monotonic() < until:
            began = time.perf_counter()
            answer = http.post(
                f"{url}/api/ai/queue", json={"model": "sleep-20", "prompt": "x", "input_image": image}, timeout=30
            )
            answer.raise_for_status()
            times["accept"].append((time.perf_counter() - began) * 1000)
            id_ = answer.json()["generations"][0]["generation_id"]
            at = time.perf_counter()
            http.get(f"{url}/api/ai/queue/{id_}", timeout=30).raise_for_status()
            times["poll"].append((time.perf_counter() - at) * 1000)
            http.get(f"{url}/api/ai/queue/{id_}?wait=30", timeout=60).raise_for_status()
            times["until over"].append((time.perf_counter() - began) * 1000)
            time.sleep(0.05)
    return times


def used(connection: redis.Redis) -> int:
    """Bytes of Redis' data."""
    return int(connection.info("memory")["used_memory"])


Times = dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Flooded:
    """What an ordinary tenant noticed meanwhile, and the most bytes that Redis held where the flood went."""

    times: Times
    most: int


def flooded(stack: embedded.Stack, at: embedded.Stack, asked: argparse.Namespace, image: str, silent: str) -> Flooded:
    """Flood one service while an ordinary tenant uses a service, the same or another on the same machine."""
    hostile, good = made_key(at, asked.per_minute), stack.api_key or ""
    counted: Counted = multiprocessing.Queue()
    floods = [
        multiprocessing.Process(target=flood, args=(kind, at.url, hostile, image, silent, asked.seconds, counted))
        for kind in FLOODS
    ]
    if at is not stack:
        # There, too, the hostile tenant is not alone.
        other = (at.url, at.api_key or "", image, asked.seconds)
        floods.append(multiprocessing.Process(target=ordinary, args=other))
    for one in floods:
        one.start()
        # What they take of this machine's processors is not the service's.
        psutil.Process(one.pid).nice(19)
    times: Times = {}
    most, until = 0, time.monotonic() + asked.seconds
    with contextlib.closing(connections.connect(at.store)) as connection:
        while (left := until - time.monotonic()) > 0:
            for name, values in ordinary(stack.url, good, image, min(2.0, left)).items():
                times.setdefault(name, []).extend(values)
            most = max(most, used(connection))
    for kind, sent, taken, refused in sorted(counted.get(timeout=60) for _ in FLOODS):
        print(f"{kind:20} {sent:6d} sent, {taken:6d} taken {refused}")
    for one in floods:
        one.join()
    return Flooded(times, most)


def run(asked: argparse.Namespace, settings: dict[str, str], image: str) -> None:
    with contextlib.ExitStack() as entered:
        silent = entered.enter_context(silent_server())
        settings = {**settings, "DARKROOM_FETCH_ALLOWED": json.dumps([silent])}
        stack = entered.enter_context(stacks.sleeping(**settings))
        ordinary(stack.url, stack.api_key or "", image, 3)
        alone = ordinary(stack.url, stack.api_key or "", image, max(10.0, asked.seconds / 4))
        with stacks.sleeping(**settings) as another:
            print("another service is flooded")
            elsewhere = flooded(stack, another, asked, image, silent)
        with contextlib.closing(connections.connect(stack.store)) as connection:
            before = used(connection)
        print("this service is flooded")
        here = flooded(stack, stack, asked, image, silent)
    print(
        f"Redis: {before / 2**20:.1f} MiB before, {here.most / 2**20:.1f} at most; records may take {BUDGET / 2**20:.0f}"
    )
    for name, values in alone.items():
        three = [
            statistics.quantiles(times, n=100, method="inclusive")
            for times in (values, elsewhere.times[name], here.times[name])
        ]
        for label, place in (("p50", 49), ("p90", 89), ("p99", 98)):
            one, other, own = (each[place] for each in three)
            print(
                f"{name:12} {label}: {one:6.1f} ms alone, {other:6.1f} another flooded, {own:6.1f} this one flooded "
                f"({own / one:.2f} and {own / other:.2f} times)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.flood", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--per-minute", type=int, help="submissions of the hostile key; by default there is no bound")
    parser.add_argument(
        "--requests-per-minute",
        type=int,
        default=6000,
        help="requests of each tenant, by default as in compose; 0: no bound",
    )
    asked = parser.parse_args()
    settings = {"DARKROOM_MAX_BYTES_PER_TENANT": str(BUDGET), "DARKROOM_ARCHIVE_AFTER_S": "30"}
    if asked.requests_per_minute:
        settings["DARKROOM_REQUESTS_PER_MINUTE"] = str(asked.requests_per_minute)
    run(asked, settings, photograph())


def made_key(stack: embedded.Stack, per_minute: int | None) -> str:
    """A key of a tenant that is hostile."""
    key, token = access.issued(
        access.KeyRequest(tenant="hostile", per_minute=per_minute), now_ms=round(time.time() * 1000)
    )
    RedisLedger(connections.connect(stack.store)).run(ledger_access.issue(key, by="bench"))
    return token


if __name__ == "__main__":
    main()
