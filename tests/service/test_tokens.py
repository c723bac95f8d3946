"""Browser tokens: what a page may do without a key, and nothing else."""

import base64
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.conftest import Tenant, eventually
from tests.service.conftest import PUBLIC, Make

PAGE = {"Origin": "https://shop.example"}


@pytest.fixture
def owner(make: Make) -> Tenant:
    # Of a tenant that nothing is remembered of.
    return make(f"yara-{secrets.token_hex(4)}")


Token = Callable[..., Tenant]


@pytest.fixture
def token(owner: Tenant) -> Token:
    """A page with a token of the owner's."""

    def made(purpose: str, **wish: object) -> Tenant:
        answer = owner.post("/api/ai/tokens", {"purpose": purpose, **wish})
        assert answer.status_code == 201, answer.text
        assert answer.json()["expires_at"] <= time.time() + 301
        return Tenant(owner.url, "page", answer.json()["token"])

    return made


def _events(url: str, headers: dict[str, str] | None = None) -> Iterator[dict[str, Any]]:
    with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
        assert answer.status_code == 200, answer.text
        for line in answer.iter_lines(decode_unicode=True):
            if line.startswith("data:"):
                yield json.loads(line[5:])


def _completed(page: Tenant, query: str) -> str:
    """The generation whose completion a page is told first, by an address alone, as an EventSource has it."""
    for data in _events(f"{page.url}/api/events?token={page.key}&types=media_generation_completed{query}"):
        if "generation_id" in data:
            return str(data["generation_id"])
    raise AssertionError("the stream ended")


def test_a_page_follows_its_owners_events_without_a_key(owner: Tenant, token: Token, alice: Tenant, tiny: str) -> None:
    page = token("events")
    alice.finished(alice.enqueue(tiny))
    id_ = owner.enqueue(tiny)
    assert _completed(page, "") == id_
    assert page.get("/api/events?generation_id=x&types=nope").status_code == 400, "as Bearer, too"


def test_a_token_of_one_generation_is_for_that_alone(owner: Tenant, token: Token, tiny: str) -> None:
    id_, other = owner.enqueue(tiny), owner.enqueue(tiny)
    page = token("generation", generation_id=id_)
    assert page.get(f"/api/ai/queue/{id_}?wait=20").json()["status"] == "succeeded"
    assert _completed(page, f"&generation_id={id_}") == id_
    assert page.get(f"/api/ai/queue/{other}").status_code == 404
    for query in ("", f"?generation_id={other}"):
        assert page.get(f"/api/events{query}").status_code == 404


def test_a_page_submits_as_many_edits_as_it_may_and_sees_those(owner: Tenant, token: Token, tiny: str) -> None:
    page, others = token("submit", edits=3), owner.enqueue(tiny)
    first = page.enqueue(tiny)
    assert page.finished(first)["status"] == "succeeded"
    assert _completed(page, f"&generation_id={first}") == first
    assert page.get(f"/api/ai/queue/{others}").status_code == 404
    assert page.get("/api/events").status_code == 404, "those of others are among them"
    body = {"model": "quick", "prompt": "x", "input_image": tiny}
    assert page.post("/api/ai/queue", {**body, "prompt": ""}).status_code == 400, "costs none"
    assert page.post("/api/ai/queue", {**body, "num_generations": 2}).status_code == 200
    assert page.post("/api/ai/queue", body).json()["error"]["message"] == "This token has no edits left"


def test_a_page_cancels_what_it_submitted_and_erases_nothing(owner: Tenant, token: Token, tiny: str) -> None:
    page = token("submit", edits=2)
    mine, others = page.enqueue(tiny, model="slower"), owner.enqueue(tiny, model="slower")
    assert page.delete(f"/api/ai/queue/{others}").status_code == 404
    erased = page.delete(f"/api/ai/queue/{mine}?erase=true")
    assert (erased.status_code, erased.json()["error"]["code"]) == (403, "forbidden")
    assert page.delete(f"/api/ai/queue/{mine}").json()["effect"] == "cancelled"
    assert owner.get(f"/api/ai/queue/{others}").json()["status"] != "cancelled"
    viewer = token("generation", generation_id=others)
    refused = viewer.delete(f"/api/ai/queue/{others}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert page.get("/api/ai/queue").status_code == 403, "an API key is for that"
    owner.delete(f"/api/ai/queue/{others}")


def test_a_page_names_no_server_and_finds_nothing_by_anothers_idempotency_key(
    owner: Tenant, token: Token, tiny: str
) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny}
    mine = owner.post("/api/ai/queue", body, headers={"Idempotency-Key": "order-1"}).json()["generations"]
    page = token("submit", edits=5)
    theirs = [
        page.post("/api/ai/queue", body, headers={"Idempotency-Key": "order-1"}).json()["generations"] for _ in "12"
    ]
    assert theirs[0] == theirs[1] != mine
    refused = page.post("/api/ai/queue", {**body, "webhook_url": "https://example.com/x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")


def test_what_the_last_edit_paid_for_is_told_again_when_it_is_repeated(token: Token, tiny: str) -> None:
    page, body = token("submit", edits=1), {"model": "quick", "prompt": "x", "input_image": tiny}
    first, again = (page.post("/api/ai/queue", body, headers={"Idempotency-Key": "once"}) for _ in "12")
    assert again.status_code == 200
    assert first.json()["generations"] == again.json()["generations"]
    assert page.post("/api/ai/queue", body).status_code == 403


def test_a_page_builds_on_what_came_of_its_token_alone(owner: Tenant, token: Token, tiny: str) -> None:
    foreign, page = owner.enqueue(tiny), token("submit", edits=5)
    owner.finished(foreign)
    own = page.enqueue(tiny)
    page.finished(own)
    body = {"model": "quick", "prompt": "x"}
    assert page.post("/api/ai/queue", {**body, "parent_generation_id": own}).status_code == 200
    assert page.post("/api/ai/queue", {**body, "parent_generation_id": foreign}).status_code == 404
    assert page.post("/api/ai/images/edit", {**body, "parent_generation_id": foreign}).status_code == 404


def test_a_stream_that_a_token_opened_ends_with_it(owner: Tenant, token: Token, tiny: str) -> None:
    page = token("events", expires_in_s=2)
    stream = _events(f"{page.url}/api/events?token={page.key}")
    assert "cursor" in next(stream)
    eventually(lambda: page.get("/api/ai/queue/nothing").status_code == 401)
    late = owner.enqueue(tiny)
    assert late not in [data.get("generation_id") for data in stream]


def test_a_token_bound_to_an_origin_is_for_pages_of_that(owner: Tenant, token: Token, tiny: str) -> None:
    page = token("generation", generation_id=owner.enqueue(tiny), origin="https://shop.example")
    path = f"/api/ai/queue/{_generation(page)}"
    assert page.get(path, headers=PAGE).status_code == 200
    for headers in ({}, {"Origin": "https://shop.example.evil"}, {"Origin": "null"}):
        assert page.get(path, headers=headers).status_code == 403


def _generation(page: Tenant) -> str:
    payload = page.key.removeprefix("dk_token_").partition(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=="))["generation_id"])


def test_a_token_ends_with_its_time_and_with_its_key(
    owner: Tenant,
    token: Token,
    operator: Tenant,
    tiny: str,
) -> None:
    id_ = owner.enqueue(tiny)
    brief, longer = token("generation", generation_id=id_, expires_in_s=1), token("generation", generation_id=id_)
    path = f"/api/ai/queue/{id_}"
    eventually(lambda: brief.get(path).status_code == 401, within_s=10)
    assert longer.get(path).status_code == 200
    operator.delete(f"/api/admin/keys/{owner.key.split('_')[2]}")
    eventually(lambda: longer.get(path).status_code == 401, within_s=10)


def test_a_stream_tells_nothing_more_once_its_key_is_revoked(
    make: Make,
    operator: Tenant,
    tiny: str,
) -> None:
    reader, writer = make("yann"), make("yann")
    stream = _events(f"{reader.url}/api/events", reader.headers)
    assert "cursor" in next(stream)
    writer.finished(writer.enqueue(tiny))
    assert "generation_id" in next(stream)
    operator.delete(f"/api/admin/keys/{reader.key.split('_')[2]}")
    eventually(lambda: reader.get("/api/ai/models").status_code == 401)
    late = writer.enqueue(tiny)
    assert late not in [data.get("generation_id") for data in stream], "it ends instead"


@pytest.mark.parametrize(
    "change", [lambda text: text[:-1], lambda text: text.replace(".", "x.", 1), lambda text: text + "x"]
)
def test_a_token_that_was_tampered_with_is_nobodys(token: Token, change: Callable[[str], str]) -> None:
    page = token("events")
    assert requests.get(f"{page.url}/api/events?token={change(page.key)}", timeout=10).status_code == 401


def test_a_key_gives_away_no_more_than_it_has(make: Make, alice: Tenant, tiny: str) -> None:
    blind = make("yara", scopes=["submit"])
    assert blind.post("/api/ai/tokens", {"purpose": "events"}).status_code == 403
    assert blind.post("/api/ai/tokens", {"purpose": "submit"}).status_code == 201
    for wish in (
        {"purpose": "generation"},
        {"purpose": "root"},
        {"purpose": "submit", "edits": 0},
        {"purpose": "events", "x": 1},
    ):
        assert alice.post("/api/ai/tokens", wish).status_code == 400
    foreign = blind.enqueue(tiny)
    assert alice.post("/api/ai/tokens", {"purpose": "generation", "generation_id": foreign}).status_code == 404


TAKEN = {
    "GET /api/events",
    "GET /api/ai/queue/{generation_id}",
    "DELETE /api/ai/queue/{generation_id}",
    "POST /api/ai/queue",
    "POST /api/ai/images/edit",
    "POST /api/ai/images/generate",
}
"""Routes that take a token at all."""


def test_no_other_route_takes_a_token(owner: Tenant, token: Token, tiny: str) -> None:
    pages = [token("events"), token("submit"), token("generation", generation_id=owner.enqueue(tiny))]
    paths = requests.get(f"{owner.url}/openapi.json", timeout=30).json()["paths"]
    asked = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    taken = set()
    for method, path in asked:
        url = owner.url + re.sub(r"\{[^}]*\}", "quick", path)
        for page in pages:
            body = None if method == "GET" else {}
            with requests.request(method, url, headers=page.headers, json=body, timeout=30, stream=True) as answer:
                if answer.status_code not in (401, 403):
                    taken.add(f"{method} {path}")
    assert taken - TAKEN == PUBLIC
