"""Nothing that a caller can send is recorded without a bound: every field of every route with a megabyte in it."""

import contextlib
import json
from typing import Any

import pytest
import requests

from api.dialects import bfl, nim
from api.dialects.fal import asking as fal
from api.dialects.fields import Fields
from api.dialects.forge import asking as forge
from api.dialects.openai import asking as openai
from api.dialects.oxen import envelope
from api.dialects.replicate import asking as replicate
from api.dialects.runpod import asking as runpod
from api.dialects.runpod import buckets
from infra import embedded
from storage import connections, keys
from storage.contracts import submissions
from tests.conftest import TENANTS, Tenant

MEGABYTE = 2**20
BOUND = submissions.MAX_BYTES + 8 * 1024
"""Of a record: the submission, and fields of its own."""
SHOWN = submissions.MAX_ECHO_BYTES + 8 * 1024
"""Of a record whose prompt is short."""

OXEN_TEXTS = ("prompt", "aspect_ratio", "seed", "output_format", "negative_prompt", "strength", "model", "priority")


def _untyped(kind: type[Fields]) -> dict[str, bool]:
    """Its fields, and whether each is read by code of its own: of the others only text can be too long."""
    return {name: name not in kind.parameters() for name in kind.names()}


OXEN = {name: name not in OXEN_TEXTS for name in (*envelope.NAMES, *OXEN_TEXTS)}
ROUTES: dict[str, tuple[str, dict[str, Any], str | None, Any]] = {
    # Where, what is enough, which of its fields holds the others, and these.
    "oxen": ("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": "PICTURE"}, None, OXEN),
    "oxen, late": ("/api/ai/queue?validate=late", {"model": "quick", "prompt": "x", "input_image": "PICTURE"}, None, OXEN),
    "runpod": ("/v2/quick/run", {"input": {"prompt": "x", "image": "PICTURE"}}, "input", _untyped(runpod.Input)),
    "runpod's job": ("/v2/quick/run", {"input": {"prompt": "x", "image": "PICTURE"}}, None, _untyped(runpod.Job)),
    "runpod's policy": (
        "/v2/quick/run", {"input": {"prompt": "x", "image": "PICTURE"}, "policy": {}}, "policy", _untyped(runpod.Policy),
    ),
    "runpod's bucket": (
        "/v2/quick/run",
        {
            "input": {"prompt": "x", "image": "PICTURE"},
            "s3Config": {"accessId": "a", "accessSecret": "b", "bucketName": "ccc", "endpointUrl": "http://127.0.0.1:9"},
        },
        "s3Config",
        _untyped(buckets.Config),
    ),
    "replicate": (
        "/v1/models/darkroom/quick/predictions", {"input": {"prompt": "x", "input_image": "PICTURE"}}, "input",
        _untyped(replicate.Input),
    ),
    "replicate's body": (
        "/v1/models/darkroom/quick/predictions", {"input": {"prompt": "x", "input_image": "PICTURE"}}, None,
        _untyped(replicate.Prediction),
    ),
    "fal": ("/fal-ai/quick", {"prompt": "x", "image_url": "PICTURE"}, None, _untyped(fal.Input)),
    "bfl": ("/v1/flux-kontext-dev", {"prompt": "x", "input_image": "PICTURE", "steps": 1}, None, _untyped(bfl.asking.Kontext)),
}  # fmt: skip
BLOCKING: dict[str, tuple[str, dict[str, Any], str | None, Any]] = {
    "openai": (
        "/v1/images/edits",
        {"model": "quick", "prompt": "x", "images": [{"image_url": "PICTURE"}], "response_format": "url"},
        None,
        _untyped(openai.Input),
    ),
    "nim": ("/v1/infer", {"prompt": "x", "image": "PICTURE", "steps": 20}, None, _untyped(nim.Kontext)),
    "forge": ("/v1/inference/quick", {"prompt": "x", "image": "PICTURE"}, None, _untyped(forge.Generic)),
}


def _deep() -> Any:
    value: Any = "x"
    for _ in range(100):
        value = {"a": [value]}
    return [value] * (MEGABYTE // len(json.dumps(value)))


STRICT = ("oxen", "openai", "nim")
"""They take none of it."""

LARGE = {"text": "x" * MEGABYTE, "list": [{"a": "b"}] * (MEGABYTE // 12), "deep": _deep()}


def _filled(value: Any, picture: str) -> Any:
    text = json.dumps(value).replace('"PICTURE"', json.dumps(picture))
    return json.loads(text)


@pytest.mark.parametrize("name", [*ROUTES, *BLOCKING])
def test_a_megabyte_in_any_field_is_refused_or_not_recorded(stack: embedded.Stack, tiny: str, name: str) -> None:
    path, plain, within, fields = (ROUTES | BLOCKING)[name]
    wendy = Tenant(stack.url, "wendy", TENANTS["wendy"])
    sizes = {}
    with contextlib.closing(connections.connect(stack.store)) as connection, requests.Session() as session:
        session.headers.update(wendy.headers)
        for field, is_untyped in {**fields, "unheard_of": True, "n" * MEGABYTE: False}.items():
            for shape, value in LARGE.items() if is_untyped else [("text", LARGE["text"])]:
                body = _filled(plain, tiny)
                (body[within] if within else body)[field] = value
                answer = session.post(stack.url + path, json=body, timeout=60)
                assert answer.status_code < 500, (field[:99], shape, answer.text[:500])
                for id_ in connection.zrange(keys.HISTORY + "wendy", -4, -1):
                    record = connection.hgetall(keys.GENERATION + id_)
                    sizes[field[:99], shape, id_] = sum(len(key) + len(part) for key, part in record.items())
                connection.delete(keys.HISTORY + "wendy")
    assert {key: size for key, size in sizes.items() if size > (BOUND if key[0] == "prompt" else SHOWN)} == {}
    assert sizes or name in STRICT, "some are accepted: a field that is passed over, or what is shown again"
