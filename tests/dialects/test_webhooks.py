"""Webhooks of the native API, and what holds for those of every dialect: secrets that change, a test call, a rest."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from infra import embedded
from tests import web
from tests.conftest import TENANTS, Receiving, Tenant, eventually
from tests.dialects.conftest import PROMPT, tenant


@pytest.fixture
def ilse(stack: embedded.Stack) -> Tenant:
    return tenant(stack, "ilse")


def _secrets(caller: Tenant) -> list[str]:
    return [one["secret"] for one in caller.get("/api/ai/webhooks/secret").json()["secrets"]]


def _verified(secret: str, received: web.Received) -> dict[str, Any]:
    found: dict[str, Any] = Webhook(secret).verify(received.body, dict(received.headers))
    return found


def _bodies(calls: Sequence[web.Received]) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in calls]


def test_a_native_webhook_tells_all_generations_of_its_request_and_is_signed(
    ilse: Tenant, tiny: str, hooks: tuple[str, Receiving]
) -> None:
    url, receiving = hooks
    with receiving() as calls:
        body = {"model": "quick", "prompt": PROMPT, "input_image": tiny, "num_generations": 2, "webhook_url": url}
        accepted = ilse.post("/api/ai/queue", body | {"webhook_events": ["started", "completed"]}).json()
        ids = [one["generation_id"] for one in accepted["generations"]]
        eventually(lambda: len(calls) == 2)
    started, completed = (_verified(_secrets(ilse)[0], one) for one in calls)
    assert started["type"] == "media_generation_started"
    assert completed["type"] == "media_generation_completed"
    told = {one["generation_id"]: one["status"] for one in completed["data"]["generations"]}
    assert told == dict.fromkeys(ids, "succeeded")
    assert all(one["result_url"].startswith("http") for one in completed["data"]["generations"])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"webhook_url": "ftp://x"}, "webhook_url"),
        ({"webhook_url": 5}, "webhook_url"),
        ({"webhook_url": "https://["}, "webhook_url"),
        ({"webhook_url": "http:///x"}, "webhook_url"),
        ({"webhook_url": "http://a:99999/"}, "webhook_url"),
        ({"webhook_url": "http://x/", "webhook_events": ["never"]}, "webhook_events"),
        ({"webhook_url": "http://x/", "webhook_events": []}, "webhook_events"),
        ({"webhook_url": "http://x/", "webhook_events": 1}, "webhook_events"),
    ],
)
def test_a_webhook_that_cannot_be_called_is_refused_at_once(
    ilse: Tenant, tiny: str, wrong: dict[str, object], field: str
) -> None:
    answer = ilse.post("/api/ai/queue", {"model": "quick", "prompt": PROMPT, "input_image": tiny, **wrong})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


def test_a_changed_secret_and_the_one_before_hold_for_a_while(ilse: Tenant, hooks: tuple[str, Receiving]) -> None:
    url, receiving = hooks
    ilse.post("/api/ai/webhooks/secret/rotate", {"overlap_s": 0})
    before = _secrets(ilse)[0]

    def ping() -> web.Received:
        with receiving() as calls:
            assert ilse.post("/api/ai/webhooks/ping", {"url": url}).json()["status"] == 200
        return calls[0]

    rotated = ilse.post("/api/ai/webhooks/secret/rotate", {"overlap_s": 3}).json()["secrets"]
    after = rotated[0]["secret"]
    assert [one["secret"] for one in rotated][:2] == [after, before]
    assert rotated[0]["expires_at"] is None
    assert before != after
    both = ping()
    assert _verified(before, both)["type"] == _verified(after, both)["type"] == "ping"
    eventually(lambda: before not in _secrets(ilse))
    new_alone = ping()
    assert _verified(after, new_alone)
    with pytest.raises(WebhookVerificationError):
        _verified(before, new_alone)


def test_a_secret_that_was_promised_holds_over_a_second_change(ilse: Tenant) -> None:
    first = _secrets(ilse)[0]
    second = ilse.post("/api/ai/webhooks/secret/rotate", {"overlap_s": 60}).json()["secrets"][0]["secret"]
    assert _secrets(ilse)[1:] == [first]
    assert ilse.post("/api/ai/webhooks/secret/rotate", {"overlap_s": 60}).json()["secrets"][1]["secret"] == second
    assert _secrets(ilse)[1:] == [second, first]


def test_replicates_secret_is_the_same_one(ilse: Tenant) -> None:
    assert ilse.get("/v1/webhooks/default/secret").json() == {"key": _secrets(ilse)[0]}


def test_secrets_are_a_tenants_own(ilse: Tenant, stack: embedded.Stack) -> None:
    other = Tenant(stack.url, "iris", TENANTS["iris"])
    assert _secrets(ilse)[0] != _secrets(other)[0]
    other.post("/api/ai/webhooks/secret/rotate", {"overlap_s": 0})
    assert _secrets(other)[0] not in _secrets(ilse)


def test_a_ping_says_what_the_receiver_answered(ilse: Tenant, hooks: tuple[str, Receiving]) -> None:
    url, receiving = hooks
    with receiving(503) as calls:
        told = ilse.post("/api/ai/webhooks/ping", {"url": url}).json()
    assert (told["outcome"], told["status"]) == ("answered 503", 503)
    assert _bodies(calls)[0]["type"] == "ping"
    private = ilse.post("/api/ai/webhooks/ping", {"url": "http://127.0.0.1:6379/"}).json()
    assert (private["outcome"][:29], private["status"]) == ("the address may not be called", None)
    assert ilse.post("/api/ai/webhooks/ping", {"url": "nonsense"}).status_code == 400
    assert ilse.post("/api/ai/webhooks/ping").status_code == 400
