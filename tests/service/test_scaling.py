"""The chart's scaling rules, asked of a real Prometheus that reads a live service."""

import re
import shutil
from collections.abc import Iterator

import pytest

from bench.scaling import scaler
from infra import embedded
from tests import web
from tests.conftest import TENANTS, Tenant, eventually
from tests.service.conftest import darkroom_admin

WORKER = {"gpuType": "cpu", "autoscaling": {"enabled": True, "min": 0, "max": 4, "queuedPerWorker": 5, "waitS": 2}}


@pytest.fixture(scope="module")
def prometheus(stack: embedded.Stack) -> Iterator[scaler.Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs Prometheus: apt-get install prometheus")
    log = stack.children["housekeeping"].log_file.read_text()
    target = re.findall(r"metrics on http://([^/]+)/", log)[-1]
    with scaler.scraping(program, web.free_port(), target) as one:
        eventually(lambda: one.value("count(darkroom_generations) or vector(0)"))
        yield one


def test_workers_are_asked_for_as_the_queue_grows_and_none_when_nothing_waits(
    stack: embedded.Stack, prometheus: scaler.Prometheus, tiny: str
) -> None:
    rules = scaler.rules(WORKER)
    eventually(lambda: prometheus.values(rules) == [0, 0, 0])
    wendy = Tenant(stack.url, "wendy", TENANTS["wendy"])
    assert darkroom_admin(stack, "pause", "tenant", "wendy").returncode == 0
    try:
        ids = [wendy.enqueue(tiny) for _ in range(7)]
        values = eventually(lambda: (now := prometheus.values(rules))[0] == 7 and now)
        assert rules.wanted(values) == 2, "five for each"
        eventually(lambda: prometheus.values(rules) == [7, 1, 0])
    finally:
        assert darkroom_admin(stack, "resume", "tenant", "wendy").returncode == 0
    for id_ in ids:
        wendy.finished(id_)
    eventually(lambda: prometheus.values(rules) == [0, 0, 0])


def test_who_works_is_not_sent_away_and_somebody_who_waits_too_long_gets_one_more(
    stack: embedded.Stack, prometheus: scaler.Prometheus, tiny: str
) -> None:
    rules = scaler.rules(WORKER)
    wendy = Tenant(stack.url, "wendy", TENANTS["wendy"])
    ids = [wendy.enqueue(tiny, model="slower", num_inference_steps=50) for _ in range(2)]
    waiting = eventually(lambda: (now := prometheus.values(rules))[1:] == [2, 1] and now)
    assert rules.wanted(waiting) == 2
    for id_ in reversed(ids):
        wendy.delete(f"/api/ai/queue/{id_}")


def test_the_most_of_all_triggers_counts_within_the_bounds() -> None:
    rules = scaler.rules(WORKER)
    assert [rules.wanted(values) for values in ([0, 0, 0], [5, 0, 0], [6, 0, 0], [0, 3, 2], [1, 0, 3], [99, 0, 0])] == [
        0, 1, 2, 3, 3, 4,
    ]  # fmt: skip
