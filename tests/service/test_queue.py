"""Enqueue, poll, list, cancel."""

import io
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from PIL import Image

from infra import embedded
from tests.conftest import PHOTOGRAPH, TENANTS, Tenant, eventually

pytestmark = pytest.mark.usefixtures("nobody_waits")


def test_an_edit_is_enqueued_polled_and_downloaded(alice: Tenant, photograph: str) -> None:
    id_ = alice.enqueue(photograph, model="flux-kontext-dev", output_format="png", aspect_ratio="match_input_image")
    found = alice.finished(id_)
    assert found["status"] == "succeeded"
    assert found["model_name"] == "flux-kontext-dev"
    assert found["weights"]["name"] == "kontext-mini"
    assert "small stand-in" in found["weights"]["note"]
    assert (found["width"], found["height"]) == (128, 128)
    assert found["fit"] == "input 512x512 scaled to 128x128"
    assert (found["progress"]["step"], found["progress"]["steps"]) == (5, 5)
    assert found["attempts"] == 1
    assert found["expires_at"] == found["completed_at"] + 7 * 24 * 3600
    assert found["enqueued_at"] <= found["started_at"] <= found["completed_at"]
    assert found["delay_ms"] >= 0
    assert found["execution_ms"] > 0
    assert found["error_code"] is None
    picture = Image.open(io.BytesIO(requests.get(found["result_url"], timeout=10).content))
    assert (picture.format, picture.size) == ("PNG", (128, 128))


def test_the_same_seed_and_request_give_the_same_pixels(alice: Tenant, photograph: str) -> None:
    def pixels(seed: int) -> bytes:
        id_ = alice.enqueue(photograph, model="flux-kontext-dev", output_format="png", seed=seed, num_inference_steps=4)
        found = alice.finished(id_)
        assert found["seed"] == seed
        return Image.open(io.BytesIO(requests.get(found["result_url"], timeout=10).content)).tobytes()

    assert pixels(7) == pixels(7)
    assert pixels(7) != pixels(8)


def test_prompt_and_guidance_reach_the_model(alice: Tenant, photograph: str) -> None:
    def pixels(**fields: object) -> bytes:
        fixed = {"output_format": "png", "seed": 1, "num_inference_steps": 4, "model": "flux-kontext-dev"}
        id_ = alice.enqueue(photograph, **{**fixed, **fields})  # type: ignore[arg-type]
        return Image.open(io.BytesIO(requests.get(alice.finished(id_)["result_url"], timeout=10).content)).tobytes()

    plain = pixels()
    assert pixels(prompt="something else entirely") != plain
    assert pixels(guidance=9.5) != plain


def test_without_a_seed_one_is_drawn_and_told(alice: Tenant, tiny: str) -> None:
    seeds = {alice.finished(alice.enqueue(tiny))["seed"] for _ in range(2)}
    assert len(seeds) == 2


def test_several_generations_of_one_edit_differ_by_their_seed(alice: Tenant, tiny: str) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny, "num_generations": 4, "seed": 2**32 - 2}
    answer = alice.post("/api/ai/queue", body).json()
    assert [one["status"] for one in answer["generations"]] == ["queued"] * 4
    found = [alice.finished(one["generation_id"]) for one in answer["generations"]]
    assert [one["seed"] for one in found] == [2**32 - 2, 2**32 - 1, 0, 1]
    assert {one["status"] for one in found} == {"succeeded"}


def test_what_was_submitted_is_echoed(alice: Tenant, tiny: str) -> None:
    found = alice.finished(
        alice.enqueue(tiny, guidance=3.5, aspect_ratio="21:9", output_quality=33, target_namespace="team")
    )
    assert (found["guidance"], found["aspect_ratio"], found["output_quality"]) == (3.5, "21:9", 33)
    assert found["target_namespace"] == "team"
    assert found["prompt"] == "make it blue"
    assert Image.open(io.BytesIO(requests.get(found["input_image"], timeout=10).content)).size == (1, 1)


def test_a_file_can_be_uploaded_with_a_form(alice: Tenant) -> None:
    form = {
        "model": "quick",
        "prompt": "x",
        "seed": "7",
        "guidance": "1.5",
        "num_generations": "2",
        "disable_safety_checker": "false",
    }
    with PHOTOGRAPH.open("rb") as file:
        answer = alice.post("/api/ai/queue", data=form, files={"input_image": file})
    assert answer.status_code == 200, answer.text
    found = [alice.finished(one["generation_id"]) for one in answer.json()["generations"]]
    assert [(one["status"], one["seed"], one["guidance"]) for one in found] == [
        ("succeeded", 7, 1.5),
        ("succeeded", 8, 1.5),
    ]


def test_a_form_is_checked_like_json(alice: Tenant) -> None:
    with PHOTOGRAPH.open("rb") as file:
        answer = alice.post(
            "/api/ai/queue", data={"model": "quick", "prompt": "x", "guidance": "11"}, files={"input_image": file}
        )
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "guidance must be a finite number between 0 and 10; got 11.0"


def test_a_result_can_be_edited_again_by_its_url(alice: Tenant, photograph: str) -> None:
    first = alice.finished(alice.enqueue(photograph))
    second = alice.finished(alice.enqueue(first["result_url"]))
    assert second["status"] == "succeeded", second
    assert second["input_image"] == first["result_url"]


def test_a_long_poll_answers_when_it_is_over_and_not_before(alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny, model="slow")
    began = time.monotonic()
    unfinished = alice.get(f"/api/ai/queue/{id_}?wait=0.5").json()
    assert unfinished["status"] in ("queued", "processing")
    assert 0.4 < time.monotonic() - began < 3
    finished = alice.get(f"/api/ai/queue/{id_}?wait=30").json()
    assert finished["status"] == "succeeded"
    assert 3 < time.monotonic() - began < 15


def test_a_poll_can_be_conditional(alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny, model="slow")
    early = alice.get(f"/api/ai/queue/{id_}")
    assert 1 <= int(early.headers["Retry-After"]) <= 30
    alice.finished(id_)
    late = alice.get(f"/api/ai/queue/{id_}", headers={"If-None-Match": early.headers["ETag"]})
    assert late.status_code == 200
    assert "Retry-After" not in late.headers
    again = alice.get(f"/api/ai/queue/{id_}", headers={"If-None-Match": late.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_list_shows_only_the_unfinished_unless_asked(stack: Any, tiny: str) -> None:
    grace = Tenant(stack.url, "grace", TENANTS["grace"])  # Nobody else uses her list.
    assert grace.get("/api/ai/queue").json() == {"count": 0, "generations": [], "next": None}
    done = [grace.enqueue(tiny) for _ in range(3)]
    for id_ in done:
        grace.finished(id_)
    waiting = grace.enqueue(tiny, model="slow")
    active = grace.get("/api/ai/queue").json()
    assert (active["count"], [one["generation_id"] for one in active["generations"]]) == (1, [waiting])
    page = grace.get("/api/ai/queue?status=succeeded&limit=2").json()
    assert [one["generation_id"] for one in page["generations"]] == [done[2], done[1]]
    rest = grace.get(f"/api/ai/queue?status=succeeded&limit=2&after={page['next']}").json()
    assert [one["generation_id"] for one in rest["generations"]] == [done[0]]
    assert rest["next"] is None
    for query in (
        "status=failed",
        "status=succeeded&model=slow",
        "status=succeeded&media_type=video",
        "namespace=other",
    ):
        assert grace.get(f"/api/ai/queue?{query}").json()["count"] == 0
    assert grace.get("/api/ai/queue?status=succeeded&model=quick&namespace=grace&media_type=image").json()["count"] == 3
    grace.delete(f"/api/ai/queue/{waiting}")


def test_a_queued_generation_knows_its_place_and_can_be_cancelled(alice: Tenant, tiny: str) -> None:
    running = alice.enqueue(tiny, model="slow")
    eventually(lambda: alice.get(f"/api/ai/queue/{running}").json()["status"] == "processing")
    waiting = [alice.enqueue(tiny, model="slow") for _ in range(3)]
    places = [alice.get(f"/api/ai/queue/{id_}").json()["queue_position"] for id_ in waiting]
    # The first may be claimed ahead, between any two looks.
    assert places in ([0, 1, 2], [0, 1, 1], [0, 0, 1], [None, 0, 1])
    for id_ in waiting:
        answer = alice.delete(f"/api/ai/queue/{id_}")
        assert (answer.status_code, answer.json()) == (
            200,
            {"status": "success", "generation_id": id_, "effect": "cancelled"},
        )
        assert alice.finished(id_)["status"] == "cancelled"
    assert alice.delete(f"/api/ai/queue/{waiting[0]}").status_code == 200
    assert alice.finished(running)["status"] == "succeeded"


def test_a_running_generation_stops_within_a_step_and_frees_the_worker(alice: Tenant, tiny: str) -> None:
    running = alice.enqueue(tiny, model="slower", num_inference_steps=50)
    eventually(lambda: alice.get(f"/api/ai/queue/{running}").json()["progress"]["step"] > 1)
    alice.delete(f"/api/ai/queue/{running}")
    began = time.monotonic()
    assert alice.finished(alice.enqueue(tiny))["status"] == "succeeded"
    assert time.monotonic() - began < 5, "the slow edit would have run for nearly eight seconds more"
    found = alice.finished(running)
    assert (found["status"], found["result_url"]) == ("cancelled", None)


def test_cancelling_what_is_over_changes_nothing(alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny)
    alice.finished(id_)
    assert alice.delete(f"/api/ai/queue/{id_}").json()["status"] == "success"
    assert alice.finished(id_)["status"] == "succeeded"


def test_the_same_idempotency_key_gives_the_same_generation(alice: Tenant, tiny: str) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny}
    headers = {"Idempotency-Key": f"order-{time.time_ns()}"}
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: alice.post("/api/ai/queue", body, headers=headers), range(8)))
    assert len({answer.json()["generations"][0]["generation_id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 7
    other = alice.post("/api/ai/queue", {**body, "prompt": "y"}, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_conflict")
    alice.finished(answers[0].json()["generations"][0]["generation_id"])


def test_tenants_do_not_see_each_other(alice: Tenant, bob: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny)
    alice.finished(id_)
    unknown = bob.get("/api/ai/queue/00000000-0000-4000-8000-000000000000")
    for answer in (bob.get(f"/api/ai/queue/{id_}"), bob.delete(f"/api/ai/queue/{id_}")):
        assert (answer.status_code, answer.json()) == (404, unknown.json())
    ids = [one["generation_id"] for one in bob.get("/api/ai/queue?status=succeeded").json()["generations"]]
    assert id_ not in ids


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "Key {}", "Token {}", "{}"])
def test_a_key_comes_in_the_forms_that_clients_have(alice: Tenant, form: str) -> None:
    for headers in ({"Authorization": form.format(alice.key)}, {"x-key": alice.key}):
        assert requests.get(alice.url + "/api/ai/models", headers=headers, timeout=10).status_code == 200


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", "Basic abc", "Bearer wrong wrong"])
@pytest.mark.parametrize("path", ["/api/ai/queue", "/api/events", "/api/ai/models"])
def test_nobody_enters_without_a_key(alice: Tenant, authorization: str | None, path: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = requests.get(alice.url + path, headers=headers, timeout=10)
    assert (answer.status_code, answer.json()["status_message"]) == (401, "unauthenticated")


def test_no_native_route_passes_over_a_query_parameter(alice: Tenant) -> None:
    paths = requests.get(f"{alice.url}/openapi.json", timeout=30).json()["paths"]
    routes = [
        (method, path)
        for path, methods in paths.items()
        for method, operation in methods.items()
        # Libraries for event streams add parameters of their own.
        if operation.get("tags") == ["oxen"] and path != "/api/events"
    ]
    assert len(routes) > 25
    for method, path in routes:
        url = alice.url + re.sub(r"\{[^}]*\}", "quick", path) + "?unheard_of=1"
        refused = requests.request(method, url, headers=alice.headers, timeout=30)
        assert refused.status_code == 400, f"{method} {path}: {refused.text}"
        assert refused.json()["error"]["field"] == "unheard_of"


SIGN_IN = "/api/ai/tokens/sign-in"


def test_no_body_is_read_of_somebody_without_a_key(stack: embedded.Stack) -> None:
    paths = requests.get(f"{stack.url}/openapi.json", timeout=30).json()["paths"]
    address = urlsplit(stack.url)
    waits = []
    for path in (re.sub(r"\{[^}]*\}", "quick", path) for path, methods in paths.items() if "post" in methods):
        with socket.create_connection((str(address.hostname), address.port or 0), timeout=3) as client:
            head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: 1000000\r\n\r\n{{".encode())
            try:
                status = client.recv(1000).split(b" ")[1]
            except TimeoutError:
                status = b"waits"
        if status not in (b"401", b"403"):
            waits.append((path, status))
    assert waits == [("/v1/infer", b"waits")], "where DARKROOM_NIM_TENANT lets in who has none"


def test_no_native_route_without_a_body_passes_over_one(alice: Tenant) -> None:
    paths = requests.get(f"{alice.url}/openapi.json", timeout=30).json()["paths"]
    routes = [
        path
        for path, methods in paths.items()
        # Who signs in has no key yet: nothing of theirs is read.
        if methods.get("post", {}).get("tags") == ["oxen"] and "requestBody" not in methods["post"] and path != SIGN_IN
    ]
    assert len(routes) >= 5
    for path in routes:
        answer = alice.post(re.sub(r"\{[^}]*\}", "quick", path), {"unheard_of": 1})
        assert answer.status_code == 400, f"{path}: {answer.text}"
        assert answer.json()["error"]["message"] == "This route takes no fields; got unheard_of"


def test_priorities_have_names(alice: Tenant, tiny: str) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny}
    for priority in ("high", "normal", "low"):
        answer = alice.post("/api/ai/queue", {**body, "priority": priority})
        assert answer.status_code == 200
        assert alice.finished(answer.json()["generations"][0]["generation_id"])["priority"] == priority
    refused = alice.post("/api/ai/queue", {**body, "priority": 1})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "priority must be one of high, normal, low; got 1"
