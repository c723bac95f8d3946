"""`make bench-flood`: one key floods every route that records something; Redis' memory, and what another tenant notices.

The floods' processes run on the same two cores, as an attacker's would not: at the lowest priority, and times tell the worst.
"""

import argparse
import base64
import json
import multiprocessing
import secrets
import statistics
import time
import uuid
from collections.abc import Callable
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

FLOODS = ("submit and cancel", "refused late", "batches", "tokens", "uploads", "retries and reads", "idempotency keys")


Counted = Any
"""A queue of what kind of flood sent how often, how often it was taken, and how it was last refused."""


def flood(kind: str, url: str, key: str, image: str, seconds: float, counted: Counted) -> None:
    """Send until the time is over; how many were sent, and how many were taken."""
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

        steps: dict[str, Callable[[], requests.Response]] = {
            "submit and cancel": lambda: post("/api/ai/queue", edit),
            "refused late": lambda: post("/api/ai/queue?validate=late", {**edit, "aspect_ratio": "no"}),
            "batches": lambda: http.post(
                f"{url}/api/ai/batches?name={'n' * 200}", timeout=30, data="\n".join(
                    json.dumps({**edit, "custom_id": str(n), "input_image": "http://192.0.2.1/a.png"}) for n in range(20)
                ),
            ),
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


def run(stack: embedded.Stack, hostile: str, seconds: float, image: str) -> None:
    connection = connections.connect(stack.store)
    good = stack.api_key or ""
    ordinary(stack.url, good, image, 3)
    alone = ordinary(stack.url, good, image, max(10.0, seconds / 4))
    before, most = used(connection), 0
    counted: Counted = multiprocessing.Queue()
    floods = [
        multiprocessing.Process(target=flood, args=(kind, stack.url, hostile, image, seconds, counted))
        for kind in FLOODS
    ]
    for one in floods:
        one.start()
        # What they take of this machine's processors is not the service's.
        psutil.Process(one.pid).nice(19)
    beside: dict[str, list[float]] = {name: [] for name in alone}
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        for name, values in ordinary(stack.url, good, image, min(2.0, left)).items():
            beside[name] += values
        most = max(most, used(connection))
    for kind, sent, taken, refused in sorted(counted.get(timeout=60) for _ in FLOODS):
        print(f"{kind:20} {sent:6d} sent, {taken:6d} taken {refused}")
    for one in floods:
        one.join()
    print(
        f"Redis: {before / 2**20:.1f} MiB before, {most / 2**20:.1f} MiB at most; records may take {BUDGET / 2**20:.0f}"
    )
    for name, values in alone.items():
        one_, other = (statistics.quantiles(times, n=100, method="inclusive") for times in (values, beside[name]))
        print(
            f"{name:12} p50 {one_[49]:7.1f} {other[49]:7.1f} ms ({other[49] / one_[49]:.2f})   "
            f"p99 {one_[98]:7.1f} {other[98]:7.1f} ms ({other[98] / one_[98]:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.flood", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--per-minute", type=int, help="submissions of the hostile key; by default there is no bound")
    parser.add_argument("--requests-per-minute", type=int, help="requests of each tenant; by default there is no bound")
    asked = parser.parse_args()
    settings = {"DARKROOM_MAX_BYTES_PER_TENANT": str(BUDGET), "DARKROOM_ARCHIVE_AFTER_S": "30"}
    if asked.requests_per_minute:
        settings["DARKROOM_REQUESTS_PER_MINUTE"] = str(asked.requests_per_minute)
    with stacks.sleeping(**settings) as stack:
        hostile = made_key(stack, asked.per_minute)
        run(stack, hostile, asked.seconds, photograph())


def made_key(stack: embedded.Stack, per_minute: int | None) -> str:
    """A key of a tenant that is hostile."""
    key, token = access.issued(
        access.KeyRequest(tenant="hostile", per_minute=per_minute), now_ms=round(time.time() * 1000)
    )
    RedisLedger(connections.connect(stack.store)).run(ledger_access.issue(key, by="bench"))
    return token


if __name__ == "__main__":
    main()
