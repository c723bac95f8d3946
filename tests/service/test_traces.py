"""One trace from a request over the worker's phases to the webhook, as a collector receives it."""

import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from infra import embedded
from tests import web
from tests.conftest import TENANTS, Tenant, eventually, running_stack

PHASES = {
    "queue",
    "attempt",
    "prepare",
    "load",
    "edit",
    "encode",
    "denoise",
    "decode",
    "store",
    "compress",
    "upload",
    "publish",
}


@dataclass
class Collector:
    """Receives spans by OTLP over HTTP."""

    received: list[web.Received]

    def trace(self, id_: str) -> dict[str, Any]:
        """The spans of a trace by name, with the service each is of."""
        found = {}
        for request in [one for one in self.received if one.path == "/v1/traces"]:
            for of_process in ExportTraceServiceRequest.FromString(request.body).resource_spans:
                [service] = [
                    one.value.string_value for one in of_process.resource.attributes if one.key == "service.name"
                ]
                for span in (span for scope in of_process.scope_spans for span in scope.spans):
                    if span.trace_id.hex() == id_:
                        assert span.name not in found, "warming a model up is no part of an edit"
                        found[span.name] = (service, span)
        return found


@pytest.fixture(scope="module")
def collector() -> Iterator[tuple[int, Collector]]:
    port = web.free_port()
    with web.receiving(port, itertools.repeat(200)) as received:
        yield port, Collector(received)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: tuple[int, Collector]) -> Iterator[embedded.Stack]:
    port, _ = collector
    with running_stack(
        tmp_path_factory.mktemp("traced"),
        DARKROOM_TRACES_ENDPOINT=f"http://127.0.0.1:{port}/v1/traces",
        DARKROOM_FETCH_ALLOWED=f'["127.0.0.1:{port}", "127.0.0.1:1"]',
        DARKROOM_MODELS='["flux-kontext-dev", "quick"]',
        OTEL_BSP_SCHEDULE_DELAY="100",
    ) as one:
        yield one


def test_one_trace_leads_from_the_request_to_the_webhook(
    stack: embedded.Stack, collector: tuple[int, Collector], photograph: str
) -> None:
    port, received = collector
    alice = Tenant(stack.url, "alice", TENANTS["alice"])
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    edit = {
        "model": "flux-kontext-dev", "prompt": "make it blue", "input_image": photograph, "num_inference_steps": 4,
        "webhook_url": f"http://127.0.0.1:{port}/hook",
    }  # fmt: skip
    answer = alice.post("/api/ai/queue", edit, headers={"traceparent": f"00-{trace}-{parent}-01"})
    assert answer.headers["X-Trace-Id"] == trace
    id_ = answer.json()["generations"][0]["generation_id"]
    assert alice.finished(id_)["status"] == "succeeded"
    names = {"POST /api/ai/queue", "webhook", *PHASES}
    spans = eventually(lambda: names <= set(found := received.trace(trace)) and found)
    request = spans["POST /api/ai/queue"][1]
    assert request.parent_span_id.hex() == parent, "it is joined to its caller's"

    def below(name: str) -> set[str]:
        above = spans[name][1].span_id
        return {one for one, (_, span) in spans.items() if span.parent_span_id == above}

    assert below("POST /api/ai/queue") == {"queue", "attempt", "webhook"}
    assert below("attempt") == {"prepare", "load", "edit", "store", "publish"}
    assert below("edit") == {"encode", "denoise", "decode"}
    assert below("store") == {"compress", "upload"}
    services = {service: {name for name, (one, _) in spans.items() if one == service} for service, _ in spans.values()}
    assert services == {"darkroom-api": {"POST /api/ai/queue", "webhook"}, "darkroom-worker": PHASES}
    order = sorted(spans, key=lambda name: spans[name][1].start_time_unix_nano)
    assert [name for name in order if name in ("queue", "prepare", "edit", "store", "publish", "webhook")] == [
        "queue", "prepare", "edit", "store", "publish", "webhook",
    ]  # fmt: skip
    assert {one.key: one.value.string_value for one in spans["attempt"][1].attributes}[
        "darkroom.model"
    ] == "flux-kontext-dev"
    hook = next(one for one in received.received if one.path == "/hook")
    assert hook.headers["traceparent"].split("-")[1] == trace, "the receiver can join it"
    log = (stack.options.data_dir / "logs" / "worker-1.log").read_text()
    assert any(trace in line and id_ in line for line in log.splitlines())


def test_what_went_wrong_is_in_the_trace_by_its_code(stack: embedded.Stack, collector: tuple[int, Collector]) -> None:
    _, received = collector
    alice = Tenant(stack.url, "alice", TENANTS["alice"])
    edit = {"model": "quick", "prompt": "make it blue", "input_image": "http://127.0.0.1:1/gone.png"}
    answer = alice.post("/api/ai/queue", edit)
    id_ = answer.json()["generations"][0]["generation_id"]
    assert alice.finished(id_)["status"] == "failed"
    trace = answer.headers["X-Trace-Id"]
    spans = eventually(lambda: (found := received.trace(trace)) and "attempt" in found and found)
    for name in ("prepare", "attempt"):
        span = spans[name][1]
        assert span.status.code == span.status.STATUS_CODE_ERROR
        assert {one.key: one.value.string_value for one in span.attributes}["error.type"] == "input_unreachable"
        assert not span.status.message


def test_what_its_caller_does_not_record_is_not_recorded_by_anybody(
    stack: embedded.Stack, collector: tuple[int, Collector], tiny: str
) -> None:
    _, received = collector
    alice = Tenant(stack.url, "alice", TENANTS["alice"])

    def sent(flags: str) -> str:
        trace = secrets.token_hex(16)
        headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-{flags}"}
        edit = {"model": "quick", "prompt": f"flags {flags}", "input_image": tiny}
        answer = alice.post("/api/ai/queue", edit, headers=headers)
        ids.append(answer.json()["generations"][0]["generation_id"])
        alice.finished(ids[-1])
        return trace

    ids: list[str] = []
    unrecorded, recorded = sent("00"), sent("01")
    eventually(lambda: "publish" in received.trace(recorded))
    assert received.trace(unrecorded) == {}
    assert ids[0].encode() not in b"".join(one.body for one in received.received), "nor as a trace of its own"
