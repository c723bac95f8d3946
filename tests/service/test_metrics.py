"""What each process tells Prometheus of what it did."""

import re
import time

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from infra import embedded
from tests.conftest import Tenant, eventually

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def told(stack: embedded.Stack) -> "Told":
    return Told(stack)


class Told:
    """The metrics of a stack's processes."""

    def __init__(self, stack: embedded.Stack) -> None:
        self._stack = stack

    def of(self, process: str) -> Series:
        log = self._stack.children[process].log_file.read_text()
        (url,) = set(re.findall(r"metrics on (http://\S+)", log)[-1:])
        families = text_string_to_metric_families(requests.get(url, timeout=10).text)
        return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}

    def value(self, process: str, name: str, **labels: str) -> float:
        """The sum of what has these labels, among others."""
        wanted = set(labels.items())
        return sum(value for (one, given), value in self.of(process).items() if one == name and wanted <= given)


def test_an_edit_leaves_its_traces(stack: embedded.Stack, told: Told, alice: Tenant, tiny: str) -> None:
    def answered() -> float:
        return told.value(
            "api", "darkroom_http_requests_total", dialect="oxen", route="/api/ai/queue", method="POST", status="200"
        )

    edited = {"model": "quick", "gpu_type": "cpu", "region": "local"}
    requests_before = answered()

    def ended(outcome: str) -> float:
        return told.value("worker-1", "darkroom_edits_total", outcome=outcome, **edited)

    succeeded, unreachable = ended("succeeded"), ended("input_unreachable")
    computed = told.value("worker-1", "darkroom_edit_phase_seconds_count", phase="execute", **edited)
    alice.finished(alice.enqueue(tiny))
    alice.finished(alice.enqueue("http://127.0.0.1:1/none.png"))
    assert answered() == requests_before + 2
    eventually(lambda: (ended("succeeded"), ended("input_unreachable")) == (succeeded + 1, unreachable + 1))
    assert told.value("worker-1", "darkroom_edit_phase_seconds_count", phase="execute", **edited) == computed + 1
    assert told.value("worker-1", "darkroom_model_load_seconds_count", model="quick") >= 1
    assert told.value("worker-1", "darkroom_model_state", model="quick", state="warm") == 1
    assert told.value("worker-1", "darkroom_object_store_seconds_count", operation="put", outcome="ok") >= 1
    assert told.value("api", "darkroom_event_delay_seconds_count") >= 4
    assert told.value("api", "darkroom_event_delay_seconds_bucket", le="10.0") >= 4


def test_each_process_tells_until_when_its_certificates_hold(told: Told) -> None:
    for process in ("api", "worker-1"):
        until = told.value(process, "darkroom_certificate_expires_timestamp_seconds", certificate="signing")
        assert until > time.time() + 86_400
        assert not told.value(process, "darkroom_certificate_expires_timestamp_seconds", certificate="tls"), (
            "none is set"
        )


def test_no_label_is_a_callers_own(told: Told, alice: Tenant) -> None:
    secret = "callers-own-words"
    for answer in (
        alice.get(f"/api/ai/queue/{secret}"), alice.get(f"/{secret}"), alice.get(f"/v2/{secret}/health"),
        requests.request(secret.upper(), alice.url + "/", timeout=10),
    ):  # fmt: skip
        assert answer.status_code >= 400
    series = told.of("api")
    assert secret not in str(series).lower()
    assert told.value("api", "darkroom_http_requests_total", route="/api/ai/queue/{generation_id}", status="404") >= 1
    assert told.value("api", "darkroom_http_requests_total", route="unknown", status="404") >= 1


def test_streams_are_counted_while_they_are_open(told: Told, alice: Tenant) -> None:
    before = told.value("api", "darkroom_event_streams")
    with requests.get(f"{alice.url}/api/events", headers=alice.headers, stream=True, timeout=30) as stream:
        lines = stream.iter_lines()
        next(lines)
        assert told.value("api", "darkroom_event_streams") == before + 1
    eventually(lambda: told.value("api", "darkroom_event_streams") == before)


def test_housekeeping_tells_how_the_service_stands(told: Told, alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny, model="slow")
    eventually(lambda: told.value("housekeeping", "darkroom_generations", state="processing") >= 1)
    waiting = [alice.enqueue(tiny, model="slow") for _ in range(8)]
    eventually(lambda: told.value("housekeeping", "darkroom_queued_generations", queue="edits.slow.any") >= 1)
    eventually(lambda: told.value("housekeeping", "darkroom_queue_age_seconds", queue="edits.slow.any") > 0.5)
    for one in (id_, *waiting):
        alice.delete(f"/api/ai/queue/{one}")
    series = told.of("housekeeping")
    assert series["darkroom_store_up", frozenset()] == 1
    assert series["darkroom_store_used_bytes", frozenset()] > 10**6
    assert told.value("housekeeping", "darkroom_gpu_workers", gpu_type="cpu", region="local") == 1
    assert series["darkroom_record_bytes", frozenset()] > 0
    now = told.value("housekeeping", "darkroom_sweep_last_success_timestamp_seconds", sweep="recover")
    eventually(
        lambda: told.value("housekeeping", "darkroom_sweep_last_success_timestamp_seconds", sweep="recover") > now
    )
    eventually(lambda: told.value("housekeeping", "darkroom_swept_total", sweep="move", to="archived") > 0)
