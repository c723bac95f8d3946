"""GET /api/events: what happens, as it happens, and what was missed."""

import time

import pytest
import requests

from infra import embedded
from tests.conftest import TENANTS, Tenant
from tests.sse import reading

pytestmark = pytest.mark.usefixtures("nobody_waits")

COMPLETED = "media_generation_completed"


def test_a_generation_is_told_from_queued_to_completed(alice: Tenant, tiny: str) -> None:
    with reading(alice) as stream:
        id_ = alice.enqueue(tiny, model="slow", num_inference_steps=8)
        event = stream.wait_for(COMPLETED, id_)
        told = stream.of(id_)
    assert event["data"]["status"] == "succeeded"
    assert (event["data"]["model"], event["data"]["media_type"]) == ("slow", "image")
    assert requests.get(event["data"]["url"], timeout=10).status_code == 200
    names = [one["event"].removeprefix("media_generation_") for one in told]
    assert names[:2] == ["queued", "started"]
    assert names[-1] == "completed"
    assert set(names[2:-1]) == {"progress"}
    # Progress is written once in a tenth of a second at most, and later when the store takes its time.
    steps = [one["data"]["step"] for one in told if "step" in one["data"]]
    assert len(steps) > 3
    assert steps == sorted(set(steps) & set(range(1, 9)))
    cursors = [tuple(map(int, one["id"].split("-"))) for one in told]
    assert cursors == sorted(set(cursors))


def test_a_failure_is_told_with_its_reason(alice: Tenant) -> None:
    with reading(alice) as stream:
        id_ = alice.enqueue("http://127.0.0.1:1/a.png")
        data = stream.wait_for(COMPLETED, id_)["data"]
    assert data["status"] == "failed"
    assert data["error"] == "input_image: the URL could not be fetched"
    assert "url" not in data


def test_a_cancellation_has_a_name_of_its_own(alice: Tenant, tiny: str) -> None:
    with reading(alice) as stream:
        id_ = alice.enqueue(tiny, model="slow")
        alice.delete(f"/api/ai/queue/{id_}")
        stream.wait_for("media_generation_cancelled", id_)
        assert COMPLETED not in [event["event"] for event in stream.of(id_)]


def test_a_subscriber_after_completion_is_still_told(alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny)
    alice.finished(id_)
    with reading(alice) as stream:
        stream.wait_for(COMPLETED, id_)
        assert {event["event"] for event in stream.of(id_)} == {COMPLETED}


def test_the_cursor_of_an_enqueue_misses_nothing_of_it(alice: Tenant, tiny: str) -> None:
    answer = alice.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": tiny}).json()
    id_ = answer["generations"][0]["generation_id"]
    alice.finished(id_)
    with reading(alice, f"?since={answer['cursor']}") as stream:
        stream.wait_for(COMPLETED, id_)
        names = [event["event"].removeprefix("media_generation_") for event in stream.of(id_)]
    assert names == ["queued", "started", "completed"]


def test_a_reconnecting_subscriber_receives_the_event_it_missed_and_no_other(alice: Tenant, tiny: str) -> None:
    with reading(alice) as stream:
        seen = alice.enqueue(tiny)
        last = stream.wait_for(COMPLETED, seen)["id"]
    missed = alice.enqueue(tiny)
    alice.finished(missed)
    with reading(alice, headers={"Last-Event-ID": last}) as stream:
        stream.wait_for(COMPLETED, missed)
        assert stream.of(seen) == []


def test_a_reader_cut_off_after_hello_can_resume_from_it(alice: Tenant, tiny: str) -> None:
    with reading(alice) as stream:
        hello = stream.wait_for("hello")
    id_ = alice.enqueue(tiny)
    alice.finished(id_)
    with reading(alice, headers={"Last-Event-ID": hello["id"]}) as stream:
        stream.wait_for(COMPLETED, id_)


@pytest.mark.parametrize(
    "cursor", ["1-0", f"{(int(time.time()) + 86_400) * 1000}-0"], ids=["too old", "from the future"]
)
def test_a_cursor_the_log_does_not_reach_gets_one_resync(alice: Tenant, tiny: str, cursor: str) -> None:
    with reading(alice, f"?since={cursor}") as stream:
        stream.wait_for("resync")
        id_ = alice.enqueue(tiny)
        stream.wait_for(COMPLETED, id_)
        assert stream.names().count("resync") == 1


def test_events_can_be_filtered_by_generation_and_type(alice: Tenant, tiny: str) -> None:
    with reading(alice, f"?types={COMPLETED},media_generation_started") as stream:
        first = alice.enqueue(tiny)
        stream.wait_for(COMPLETED, first)
        assert [event["event"] for event in stream.of(first)] == ["media_generation_started", COMPLETED]
    second = alice.enqueue(tiny)
    with reading(alice, f"?generation_id={second}") as stream:
        stream.wait_for(COMPLETED, second)
        assert stream.of(first) == []


def test_tenants_do_not_hear_each_other(alice: Tenant, bob: Tenant, tiny: str) -> None:
    with reading(alice) as hers, reading(bob) as his:
        one, other = alice.enqueue(tiny), bob.enqueue(tiny)
        hers.wait_for(COMPLETED, one)
        his.wait_for(COMPLETED, other)
        assert hers.of(other) == []
        assert his.of(one) == []
    with reading(bob, "?since=" + hers.events[0]["id"]) as his:
        his.wait_for(COMPLETED, other)
        assert his.of(one) == []


def test_the_frames_are_those_published_clients_parse(stack: embedded.Stack, tiny: str) -> None:
    ivan = Tenant(stack.url, "ivan", TENANTS["ivan"])
    id_ = ivan.enqueue(tiny)
    ivan.finished(id_)
    with requests.get(f"{ivan.url}/api/events", headers=ivan.headers, stream=True, timeout=30) as answer:
        assert answer.headers["x-accel-buffering"] == "no"
        raw = b""
        for chunk in answer.iter_content(chunk_size=None):
            raw += chunk
            # What this tenant was told before comes first; the frame after this generation's is its padding.
            if raw.partition(id_.encode())[2].count(b"\n\n") >= 2:
                break
    assert b"\r" not in raw
    assert f'event: {COMPLETED}\ndata: {{"generation_id":"{id_}","status":"succeeded",'.encode() in raw
    padding = raw.partition(id_.encode())[2].split(b"\n\n")[1]
    assert padding.startswith(b": ")
    assert len(padding) >= 4096
