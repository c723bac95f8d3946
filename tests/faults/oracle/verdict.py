"""The promises, checked from the outside once the faults are over."""

import contextlib
import io
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
from PIL import Image

from infra import embedded
from storage import connections, keys
from tests.conftest import TENANTS, Tenant
from tests.faults.oracle.load import TENANT, Book
from workers.pipelines.stand_in import stamped_seed


@dataclass
class Verdict:
    """What was found. A run is good when `violations` is empty."""

    accepted: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    second_attempts: int = 0
    recovery_ms: list[int] = field(default_factory=list)


def reach(stack: embedded.Stack, book: Book, *, settle_s: float) -> Verdict:
    """Wait until nothing moves any more, `settle_s` seconds at the most, then look at everything."""
    tenant = Tenant(stack.url, TENANT, TENANTS[TENANT])
    verdict = Verdict(accepted=len(book.seeds))
    _wait_until_idle(tenant, settle_s)
    polled = {id_: _poll(tenant, id_) for id_ in book.seeds}
    for id_, found in polled.items():
        if found is None:
            verdict.lost.append(id_)
        elif found["status"] not in ("succeeded", "failed", "cancelled"):
            verdict.stuck.append(id_)
        else:
            verdict.statuses[found["status"]] += 1
            verdict.second_attempts += found["attempts"] > 1
            verdict.violations += _check_generation(found, book)
    known = {id_: found for id_, found in polled.items() if found is not None}
    patience_s = min(20, settle_s)
    verdict.violations += _patiently(lambda: _check_events(stack, book, known, verdict), patience_s)
    verdict.violations += _check_list(tenant, known)
    verdict.violations += _patiently(lambda: _check_stores(stack, known), patience_s)
    verdict.violations += [f"lost: {id_}" for id_ in verdict.lost] + [f"stuck: {id_}" for id_ in verdict.stuck]
    return verdict


def _wait_until_idle(tenant: Tenant, settle_s: float) -> None:
    deadline = time.monotonic() + settle_s
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            answer = tenant.get("/api/ai/queue?limit=1")
            if answer.status_code == 200 and answer.json()["count"] == 0:
                return
        time.sleep(0.3)


def _poll(tenant: Tenant, id_: str) -> dict[str, Any] | None:
    for _ in range(20):
        with contextlib.suppress(requests.RequestException):
            answer = tenant.get(f"/api/ai/queue/{id_}")
            if answer.status_code in (200, 404):
                found: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
                return found
        time.sleep(0.3)
    raise AssertionError("the API does not answer any more")


def _check_generation(found: dict[str, Any], book: Book) -> list[str]:
    id_, status = found["generation_id"], found["status"]
    if status == "cancelled":
        return [] if id_ in book.cancelled else [f"cancelled by nobody: {id_}"]
    if status == "failed":
        # A worker may be lost with the same generation twice when two are killed in a row; nothing else may fail.
        return [] if found["error_code"] == "worker_lost" else [f"failed: {id_}: {found['error_code']}"]
    picture = requests.get(found["result_url"], timeout=20)
    if picture.status_code != 200:
        return [f"published but not there: {id_}: HTTP {picture.status_code}"]
    seed = stamped_seed(Image.open(io.BytesIO(picture.content)))
    return [] if seed == book.seeds[id_] == found["seed"] else [f"somebody else's picture: {id_}"]


def _check_events(stack: embedded.Stack, book: Book, known: dict[str, Any], verdict: Verdict) -> list[str]:
    wrong, verdict.doubled = [], []
    with contextlib.closing(connections.connect(stack.store)) as connection:
        log: Any = connection.xrange(keys.EVENTS + TENANT)
    verdict.recovery_ms = recoveries(log)
    logged = Counter(entry["id"] for _, entry in log if entry["type"].endswith(("completed", "cancelled")))
    for id_, found in known.items():
        told = book.told.get(id_, [])
        if logged[id_] > 1 or len(told) > 1:
            verdict.doubled.append(id_)
            wrong.append(f"ended more than once: {id_}: {logged[id_]} in the log, told {told}")
        elif told != [found["status"]]:
            wrong.append(f"events and poll disagree: {id_}: told {told}, polled {found['status']}")
    order = [tuple(map(int, cursor.split("-"))) for cursor in book.cursors]
    return wrong if order == sorted(set(order)) else [*wrong, "events out of order"]


def recoveries(log: list[tuple[str, dict[str, str]]]) -> list[int]:
    """Milliseconds from one attempt's start to the next one's, for every generation that was tried again.

    More than what recovery takes by the time the first attempt ran before it was lost.
    """
    started: dict[str, int] = {}
    gaps = []
    for cursor, entry in log:
        if entry["type"].endswith("started"):
            at = int(cursor.partition("-")[0])
            if entry["id"] in started:
                gaps.append(at - started[entry["id"]])
            started[entry["id"]] = at
    return gaps


def _check_list(tenant: Tenant, known: dict[str, Any]) -> list[str]:
    wrong = []
    for status in ("succeeded", "failed", "cancelled"):
        listed: set[str] = set()
        after = ""
        while True:
            page = tenant.get(f"/api/ai/queue?status={status}&limit=200{after}").json()
            listed |= {one["generation_id"] for one in page["generations"]}
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        polled = {id_ for id_, found in known.items() if found["status"] == status}
        if listed != polled:
            wrong.append(f"list and polls disagree on {status}: {len(listed ^ polled)} generations")
    return wrong


def _patiently(look: Callable[[], list[str]], patience_s: float) -> list[str]:
    """What is still wrong when it has had time: readers come back, objects are deleted."""
    deadline = time.monotonic() + patience_s
    while (wrong := look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return wrong


def _check_stores(stack: embedded.Stack, known: dict[str, Any]) -> list[str]:
    wrong = []
    with contextlib.closing(connections.connect(stack.store)) as connection:
        for key in (keys.LEASES, keys.DEPTHS, keys.DUE, keys.DEADLINES, keys.ACTIVE + TENANT):
            if connection.exists(key):
                wrong.append(f"left over: {key}")
        here = {str(id_) for id_ in connection.zrange(keys.HISTORY + TENANT, 0, -1)}
        for id_ in connection.zrange(keys.PARKED, 0, -1):
            # An operator looks at it, and its whole request waits for that.
            here -= {str(id_), *str(connection.hget(f"{keys.GENERATION}{id_}", "siblings") or "").split()}
        # What somebody who died was about to move is moved five minutes later.
        for id_ in here:
            if connection.zscore(keys.EXPIRING, f"records/{TENANT}/{id_}.json") is None:
                status, siblings = connection.hmget(f"{keys.GENERATION}{id_}", "status", "siblings")
                due = connection.zscore(keys.ARCHIVING, id_)
                wrong.append(f"not archived: {id_}, {status}, siblings {siblings}, to be looked at {due}")
        for key in connection.scan_iter(match=keys.PREFIX + "*"):
            if not str(key).startswith(keys.PERMANENT) and connection.ttl(key) == -1:
                wrong.append(f"lives for ever: {key}")
            if str(key).startswith(keys.BROKER + "edits.") and connection.type(key) == "list":
                wrong.append(f"a ticket waits for nothing: {key}")
    root = stack.options.data_dir / "objects" / "darkroom" / "results" / TENANT
    stored = {file.parent.name: file for file in root.rglob("*") if file.is_file()} if root.exists() else {}
    for id_, found in known.items():
        if (id_ in stored) != (found["status"] == "succeeded"):
            wrong.append(f"objects and poll disagree: {id_}: {found['status']}, stored: {id_ in stored}")
    return wrong
