"""The same `Idempotency-Key` with the same request gives the same generation, with any other request 422: in every dialect."""

import copy
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from infra import embedded
from tests.conftest import TENANTS

NOWHERE = "http://127.0.0.1:1/hook"
"""Nobody may be called there."""
BUCKET = {"accessId": "a", "accessSecret": "secret", "bucketName": "mine", "endpointUrl": "http://127.0.0.1:1"}


@dataclass(frozen=True)
class Asking:
    """A route, what is sent to it, and where the answer has the generation's id. The picture is the tests' own."""

    route: str
    body: dict[str, Any]
    id_: Callable[[requests.Response], object]
    headers: dict[str, str] = field(default_factory=dict)


QUICK = {"prompt": "x", "num_inference_steps": 4}
ASKING = {
    "oxen": Asking(
        "/api/ai/queue",
        {**QUICK, "model": "quick", "input_image": "PICTURE", "webhook_url": NOWHERE},
        lambda answer: answer.json()["generations"][0]["generation_id"],
    ),
    "runpod": Asking(
        "/v2/quick/run",
        {"input": {**QUICK, "image": "PICTURE"}, "webhook": NOWHERE, "s3Config": BUCKET},
        lambda answer: answer.json()["id"],
    ),
    "replicate": Asking(
        "/v1/models/any/quick/predictions",
        {"input": {**QUICK, "input_image": "PICTURE"}, "webhook": NOWHERE},
        lambda answer: answer.json()["id"],
    ),
    "bfl": Asking(
        "/v1/flux-kontext-dev",
        {"prompt": "x", "steps": 1, "input_image": "PICTURE", "webhook_url": NOWHERE, "webhook_secret": "a"},
        lambda answer: answer.json()["id"],
    ),
    "fal": Asking("/fal-ai/quick", {**QUICK, "image_url": "PICTURE"}, lambda answer: answer.json()["request_id"]),
    "fal, blocking": Asking(
        "/run/fal-ai/quick", {**QUICK, "image_url": "PICTURE"}, lambda answer: answer.headers["x-fal-request-id"]
    ),
    "openai": Asking(
        "/v1/images/edits",
        {"model": "quick", "prompt": "x", "quality": "low", "images": [{"image_url": "PICTURE"}]},
        lambda answer: answer.headers["x-request-id"],
    ),
    "forge": Asking(
        "/v1/inference/quick",
        {"prompt": "x", "steps": 1, "image": "PICTURE"},
        lambda answer: answer.json()["generation_id"],
    ),
    "nim": Asking(
        "/v1/infer",
        {"prompt": "x", "steps": 20, "image": "PICTURE", "seed": 7},
        lambda answer: answer.json()["artifacts"][0]["base64"],
    ),
}

CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    # dialect, what of it, where and to what: `?` is the query, `#` a header
    ("oxen", "webhook", {"webhook_url": NOWHERE + "2"}),
    ("oxen", "moments", {"webhook_events": ["started", "completed"]}),
    ("oxen", "priority", {"priority": "low"}),
    ("oxen", "queue limit", {"queue_ttl": 60}),
    ("oxen", "run limit", {"execution_timeout": 60}),
    ("oxen", "deadline", {"deadline": 60}),
    ("oxen", "namespace", {"target_namespace": "other"}),
    ("oxen", "GPU type", {"gpu_type": "cpu"}),
    ("oxen", "price", {"max_cost_usd": 5}),
    ("oxen", "count", {"num_generations": 2}),
    ("oxen", "seed", {"seed": 1}),
    ("oxen", "picture", {"input_image": "OTHER"}),
    ("runpod", "webhook", {"webhook": NOWHERE + "2"}),
    ("runpod", "no webhook", {"webhook": None}),
    ("runpod", "bucket", {"s3Config.bucketName": "other"}),
    ("runpod", "store of the bucket", {"s3Config.endpointUrl": "http://127.0.0.1:2"}),
    ("runpod", "folder", {"s3Config.objectPath": "other"}),
    ("runpod", "no bucket", {"s3Config": None}),
    ("runpod", "run limit", {"policy": {"executionTimeout": 60_000}}),
    ("runpod", "queue limit", {"policy": {"ttl": 60_000}}),
    ("runpod", "priority", {"policy": {"lowPriority": True}}),
    ("runpod", "inline picture", {"input.enable_base64_output": True}),
    ("replicate", "webhook", {"webhook": NOWHERE + "2"}),
    ("replicate", "moments", {"webhook_events_filter": ["completed"]}),
    ("replicate", "deadline", {"#Cancel-After": "5m"}),
    ("bfl", "webhook", {"webhook_url": NOWHERE + "2"}),
    ("bfl", "secret", {"webhook_secret": "b"}),
    ("fal", "webhook", {"?fal_webhook": NOWHERE}),
    ("fal", "priority", {"#x-fal-queue-priority": "low"}),
    ("fal", "queue limit", {"#x-fal-request-timeout": "60"}),
    ("fal", "inline picture", {"sync_mode": True}),
    ("fal, blocking", "queue limit", {"#x-fal-request-timeout": "60"}),
    ("openai", "count", {"n": 2}),
    ("openai", "format", {"output_format": "jpeg"}),
    ("openai", "picture", {"images": [{"image_url": "OTHER"}]}),
    ("forge", "region", {"region": "local"}),
    ("forge", "GPU type", {"gpu_type": "cpu"}),
    ("forge", "seed", {"seed": 1}),
    ("nim", "seed", {"seed": 8}),
    ("nim", "picture", {"image": "OTHER"}),
]


def _sent(
    stack: embedded.Stack, asking: Asking, key: str, pictures: dict[str, str], **changes: Any
) -> requests.Response:
    body, headers, query = copy.deepcopy(asking.body), dict(asking.headers), {}
    for name, value in changes.items():
        if name.startswith("#"):
            headers[name[1:]] = value
        elif name.startswith("?"):
            query[name[1:]] = value
        else:
            *path, last = name.split(".")
            at = body
            for part in path:
                at = at[part]
            at[last] = value
    return requests.post(
        stack.url + asking.route,
        json=_filled(body, pictures),
        params=query,
        headers={"Authorization": f"Bearer {TENANTS['nina']}", "Idempotency-Key": key, **headers},
        timeout=60,
    )


def _filled(value: Any, pictures: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _filled(one, pictures) for name, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, pictures) for one in value]
    return pictures.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def first(stack: embedded.Stack) -> Callable[[str, dict[str, str]], str]:
    """Sends a dialect's request once, and says under which key."""
    keys: dict[str, str] = {}

    def sent(dialect: str, pictures: dict[str, str]) -> str:
        if dialect not in keys:
            keys[dialect] = secrets.token_hex(8)
            answer = _sent(stack, ASKING[dialect], keys[dialect], pictures)
            assert answer.status_code in (200, 201), answer.text
        return keys[dialect]

    return sent


@pytest.fixture
def pictures(tiny: str, photograph: str) -> dict[str, str]:
    return {"PICTURE": tiny, "OTHER": photograph}


@pytest.mark.parametrize("dialect", ASKING)
def test_the_same_request_is_the_same_generation(
    stack: embedded.Stack, first: Callable[..., str], pictures: dict[str, str], dialect: str
) -> None:
    key, asking = first(dialect, pictures), ASKING[dialect]
    again = [_sent(stack, asking, key, pictures) for _ in range(2)]
    assert [answer.status_code for answer in again] in ([200, 200], [201, 201]), again[0].text
    assert asking.id_(again[0]) == asking.id_(again[1])


@pytest.mark.parametrize(("dialect", "what", "changes"), CHANGES, ids=[f"{one[0]}: {one[1]}" for one in CHANGES])
def test_another_request_under_the_same_key_is_refused(
    stack: embedded.Stack,
    first: Callable[..., str],
    pictures: dict[str, str],
    dialect: str,
    what: str,
    changes: dict[str, Any],
) -> None:
    key = first(dialect, pictures)
    answer = _sent(stack, ASKING[dialect], key, pictures, **changes)
    assert answer.status_code == 422, answer.text
    assert "Idempotency-Key" in answer.text, "for this reason and no other"


def test_every_dialect_stands_in_the_table(stack: embedded.Stack) -> None:
    spoken = requests.get(stack.url, timeout=10).json()["dialects"]
    assert (
        {name.partition(",")[0] for name in ASKING} == set(spoken) == {name.partition(",")[0] for name, *_ in CHANGES}
    )
