"""Bad input: refused early, with a sentence naming the field, and leaving nothing behind."""

import contextlib
import functools
import json
import math
import os
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from PIL import Image

from infra import embedded
from storage import connections, keys
from tests import web
from tests.conftest import PHOTOGRAPH, Tenant, data_uri, encoded, eventually
from tests.unit.test_pictures import bomb

PNG = encoded(Image.new("RGB", (64, 64), "red"), "PNG")


@functools.cache
def _client(url: str, region: str, access: str, secret: str) -> Any:
    names = {"region_name": region, "aws_access_key_id": access, "aws_secret_access_key": secret}
    return boto3.client("s3", endpoint_url=url, config=Config(s3={"addressing_style": "path"}), **names)


def _objects(stack: embedded.Stack) -> set[str]:
    """Pictures and what else was sent; records of what is over come there by themselves."""
    store = stack.store
    secret = store.s3_secret_access_key.get_secret_value()
    client = _client(store.s3_endpoint_url, store.s3_region, store.s3_access_key_id, secret)
    folders = client.list_objects_v2(Bucket=store.s3_bucket, Delimiter="/").get("CommonPrefixes", ())
    kept = [one["Prefix"] for one in folders if one["Prefix"] not in ("records/", "expiry/")]
    pages = client.get_paginator("list_objects_v2")
    found = [page for prefix in kept for page in pages.paginate(Bucket=store.s3_bucket, Prefix=prefix)]
    return {entry["Key"] for page in found for entry in page.get("Contents", ())}


def _records(stack: embedded.Stack) -> set[str]:
    with contextlib.closing(connections.connect(stack.store)) as connection:
        patterns = (keys.GENERATION, keys.PENDING, keys.ACTIVE, keys.IDEMPOTENCY)
        return {str(key) for pattern in patterns for key in connection.scan_iter(match=pattern + "*")}


def _settled(stack: embedded.Stack) -> None:
    """Once nothing that earlier tests asked for is unfinished."""
    with contextlib.closing(connections.connect(stack.store)) as connection:
        eventually(lambda: not connection.exists(keys.LEASES, keys.DEPTHS, keys.DUE))


@pytest.fixture
def nothing_left_behind(stack: embedded.Stack) -> Iterator[None]:
    """Neither a record nor an object came of the test."""
    _settled(stack)
    before = _objects(stack), _records(stack)
    yield
    # What earlier tests cancelled may still be on its way there, and out again.
    eventually(lambda: _objects(stack) <= before[0])
    assert _records(stack) <= before[1]


@pytest.mark.usefixtures("nothing_left_behind")
class TestRefusedAtOnce:
    @pytest.mark.parametrize(
        ("image", "sentence"),
        [
            (None, "input_image is required"),
            ("", "input_image must be an http(s) URL or a data URI"),
            (7, "input_image must be an http(s) URL or a data URI"),
            ("ftp://example.com/a.png", "input_image must be an http(s) URL or a data URI"),
            ("data:image/png,hello", "input_image must be a data URI of the form"),
            ("data:text/plain;base64,aGVsbG8=", "input_image must be a whole PNG, JPEG, WebP or GIF picture"),
            ("data:image/png;base64,!!!", "input_image is not valid base64"),
            (data_uri(b"only text"), "input_image must be a whole PNG, JPEG, WebP or GIF picture"),
            (data_uri(PNG[:-30]), "input_image is a damaged or truncated PNG picture"),
            (data_uri(bomb(10_000, 8_000)), "input_image may have at most 50 megapixels"),
            ([data_uri(PNG)] * 5, "input_image: quick takes at most 4; got 5"),
        ],
        ids=["none", "empty", "number", "ftp", "no base64", "no image", "base64", "text", "truncated", "bomb", "many"],
    )
    def test_a_picture_that_is_none(self, alice: Tenant, image: object, sentence: str) -> None:
        answer = alice.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": image})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert sentence in error["message"]
        assert error["field"] == "input_image"

    @pytest.mark.parametrize(
        ("fields", "field", "status"),
        [
            ({"num_inference_steps": 3}, "num_inference_steps", 400),
            ({"num_inference_steps": 51}, "num_inference_steps", 400),
            ({"guidance": -0.1}, "guidance", 400),
            ({"guidance": 10.1}, "guidance", 400),
            ({"guidance": math.nan}, "guidance", 400),
            ({"seed": -1}, "seed", 400),
            ({"seed": 2**32}, "seed", 400),
            ({"output_quality": -1}, "output_quality", 400),
            ({"output_quality": 101}, "output_quality", 400),
            ({"num_generations": 0}, "num_generations", 400),
            ({"num_generations": 5}, "num_generations", 400),
            ({"num_generations": "2"}, "num_generations", 400),
            ({"num_generations": True}, "num_generations", 400),
            ({"prompt": ""}, "prompt", 400),
            ({"prompt": "a" * 100_000}, "prompt", 400),
            ({"aspect_ratio": "16:10"}, "aspect_ratio", 400),
            ({"steps": 9}, "steps", 400),
            ({"model": "nope"}, "model", 404),
            ({"model": ""}, "model", 400),
            ({"response_format": "b64_json"}, "response_format", 400),
        ],
    )
    @pytest.mark.parametrize("path", ["/api/ai/queue", "/api/ai/images/edit"])
    def test_a_field_outside_its_range(
        self, alice: Tenant, path: str, fields: dict[str, Any], field: str, status: int, tiny: str
    ) -> None:
        if path.endswith("edit") and field == "response_format":
            fields = {"response_format": "jpg"}
        body = json.dumps({"model": "quick", "prompt": "x", "input_image": tiny, **fields})
        answer = alice.post(path, data=body)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert error["field"] == field
        assert error["detail"] == error["message"]
        assert error["message"]
        assert error["title"]
        assert answer.json()["status_message"] == error["type"]
        assert len(answer.text) < 1500, "long input is not repeated"

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[]", b"null", b'{"model": "quick", "prompt": "\xff\xfe"}', b'{"prompt": "\\ud800"}']
    )
    def test_a_body_that_is_no_json_object(self, alice: Tenant, body: bytes) -> None:
        answer = alice.post("/api/ai/queue", data=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")

    def test_a_body_over_the_limit(self, alice: Tenant) -> None:
        answer = alice.post("/api/ai/queue", data=b'{"prompt": "' + b"a" * (33 * 2**20))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")

    def test_a_picture_over_the_limit(self, alice: Tenant) -> None:
        uri = data_uri(PNG + b"\0" * (21 * 2**20))
        answer = alice.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": uri})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")

    def test_a_form_with_a_file_nobody_asked_for(self, alice: Tenant) -> None:
        with PHOTOGRAPH.open("rb") as file:
            answer = alice.post("/api/ai/queue", data={"model": "quick", "prompt": "x"}, files={"picture": file})
        assert (answer.status_code, answer.json()["error"]["field"]) == (400, "picture")

    @pytest.mark.parametrize(
        "path",
        ["/api/ai/queue/x?wait=abc", "/api/ai/queue?limit=0", "/api/events?since=yesterday", "/api/events?types=x"],
    )
    def test_a_bad_query(self, alice: Tenant, path: str) -> None:
        answer = alice.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")

    @pytest.mark.parametrize(
        ("query", "told"),
        [
            ("queue?status=bogus", "status: .*'queued'.* or .*'all'.*; got 'bogus'"),
            ("queue?limit=900", "limit: must be at least 1 and at most 200; got '900'"),
            ("queue?limit=0", "limit: must be at least 1 and at most 200; got '0'"),
            ("queue?limit=x", "limit: .*integer.*; got 'x'"),
            ("queue?after=bogus", "after: must be the `next` of the page before; got 'bogus'"),
            (
                "queue?statsu=all",
                r"statsu is not a known query parameter \(did you mean status\?\); allowed: after, .*",
            ),
            ("usage?month=2026-13", "month: must be a year and a month such as 2026-11; got '2026-13'"),
            ("models/quick/estimate?num_inference_steps=999", "num_inference_steps .* 50.*"),
            ("models/quick/estimate?width=512", "width and height belong together; height is missing"),
        ],
    )
    def test_a_bad_query_is_told_with_what_is_allowed(self, alice: Tenant, query: str, told: str) -> None:
        answer = alice.get(f"/api/ai/{query}")
        assert answer.status_code == 400
        assert re.fullmatch(told, answer.json()["error"]["message"]), answer.text

    def test_a_number_of_a_body_is_told_with_its_range(self, alice: Tenant) -> None:
        answer = alice.post("/api/ai/tokens", {"purpose": "submit", "edits": 10**9})
        assert re.fullmatch(
            "edits: must be at least 1 and at most 1000; got 1000000000", answer.json()["error"]["message"]
        )

    @pytest.mark.parametrize("id_", ["null", "bogus", ""])
    def test_events_of_what_no_generation_is_called(self, alice: Tenant, id_: str) -> None:
        answer = alice.get(f"/api/events?generation_id={id_}")
        assert (answer.status_code, answer.json()["error"]["field"]) == (400, "generation_id")

    @pytest.mark.parametrize(("sent", "meant"), [("webhok_url", "webhook_url"), ("num_generation", "num_generations")])
    def test_a_misspelt_field_with_the_one_that_was_meant(
        self, alice: Tenant, tiny: str, sent: str, meant: str
    ) -> None:
        answer = alice.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": tiny, sent: "1"})
        message = answer.json()["error"]["message"]
        assert message.startswith(f"{sent} is not a known parameter (did you mean {meant}?); allowed: aspect_ratio, ")
        assert {"input_image", "group", "num_inference_steps"} <= set(message.partition("allowed: ")[2].split(", "))

    @pytest.mark.parametrize("field", ["group", "custom_id"])
    def test_an_empty_name(self, alice: Tenant, tiny: str, field: str) -> None:
        answer = alice.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": tiny, field: ""})
        told = f"{field} must be a string of 1 to 200 characters; got ''"
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, told)

    def test_a_route_that_does_not_exist(self, alice: Tenant) -> None:
        assert alice.get("/api/ai/nothing").json()["status_message"] == "resource_not_found"
        assert alice.post("/api/ai/models", {}).status_code == 405

    def test_a_method_that_a_route_does_not_have(self, alice: Tenant) -> None:
        answer = requests.put(f"{alice.url}/api/ai/queue", headers=alice.headers, timeout=10)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "DELETE, GET, POST")
        assert answer.json()["error"]["message"] == "PUT is not for /api/ai/queue; allowed: DELETE, GET, POST"


def test_what_an_idempotency_conflict_stored_is_removed_again(stack: embedded.Stack, alice: Tenant, tiny: str) -> None:
    headers = {"Idempotency-Key": f"conflict-{os.urandom(6).hex()}"}
    body = {"model": "quick", "prompt": "x", "input_image": tiny}
    alice.finished(alice.post("/api/ai/queue", body, headers=headers).json()["generations"][0]["generation_id"])
    _settled(stack)
    before = _objects(stack)
    for prompt, status in (("x", 200), ("y", 422)):
        assert alice.post("/api/ai/queue", {**body, "prompt": prompt}, headers=headers).status_code == status
    eventually(lambda: _objects(stack) <= before)


class TestUrls:
    """A URL is fetched by a worker: a bad one makes the generation fail, soon and with its reason."""

    @pytest.fixture
    def port(self, stack: embedded.Stack) -> int:
        return int(stack.options.environment["TEST_IMAGE_PORT"])

    def test_a_good_one_is_edited(self, alice: Tenant, port: int) -> None:
        with web.serving(port, {"/a.png": web.picture(PNG)}):
            url = f"http://127.0.0.1:{port}/a.png"
            found = alice.finished(alice.enqueue(url))
        assert (found["status"], found["input_image"]) == ("succeeded", url)

    @pytest.mark.parametrize(
        ("answer", "code", "sentence"),
        [
            (web.missing, "input_unreachable", "the server answered 404 for url"),
            (web.silent, "input_unreachable", "no answer within 3 seconds"),
            (web.redirect("http://127.0.0.1:9/x.png"), "input_unreachable", "this address may not be fetched"),
            (web.redirect("http://169.254.169.254/latest"), "input_unreachable", "this address may not be fetched"),
            (
                web.picture(b"<html>not found</html>", "text/html"),
                "invalid_input",
                "must be a whole PNG, JPEG, WebP or GIF",
            ),
            (web.picture(PNG[:-30]), "invalid_input", "damaged or truncated"),
            (web.picture(bomb(10_000, 8_000)), "invalid_input", "at most 50 megapixels"),
        ],
        ids=["404", "hangs", "redirect to a private port", "redirect to metadata", "html", "truncated", "bomb"],
    )
    def test_a_bad_one_fails_with_its_reason_and_leaves_no_object(
        self, stack: embedded.Stack, alice: Tenant, port: int, answer: web.Answer, code: str, sentence: str
    ) -> None:
        _settled(stack)
        before = _objects(stack)
        with web.serving(port, {"/a.png": answer}):
            found = alice.finished(alice.enqueue(f"http://127.0.0.1:{port}/a.png"))
        assert (found["status"], found["error_code"], found["attempts"]) == ("failed", code, 1)
        assert sentence in found["error_message"]
        assert found["result_url"] is None
        eventually(lambda: _objects(stack) <= before)

    @pytest.mark.parametrize("field", ["input_image", "mask_image"])
    @pytest.mark.parametrize(
        "url",
        [
            "http://10.0.0.7/a.png",
            "https://169.254.169.254/latest",
            "http://[::1]/a.png",
            "http://[::ffff:10.0.0.7]/a.png",
            "http://0x7f.1/a.png",
            "http://2130706433/a.png",
            "http://example.com:6379/",
            "https://user@example.com/a.png",
            "http://example.com:eighty/a.png",
            "http:///a.png",
        ],
    )
    def test_one_that_may_not_be_fetched_is_refused_at_once(
        self, alice: Tenant, tiny: str, field: str, url: str
    ) -> None:
        body = {"model": "quick", "prompt": "x", "input_image": tiny, field: url}
        answer = alice.post("/api/ai/queue", body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["field"]) == (400, "invalid_input", field)
        assert "must be public, on port 80 or 443" in error["message"]

    def test_a_name_that_leads_inside_is_found_when_it_is_fetched(self, alice: Tenant) -> None:
        found = alice.finished(alice.enqueue("http://localhost/a.png"))
        assert (found["status"], found["error_code"]) == ("failed", "input_unreachable")
        assert "leads to no public address" in found["error_message"]


def test_late_validation_makes_a_failed_generation_as_oxen_does(alice: Tenant, tiny: str) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny, "aspect_ratio": "7:5"}
    answer = alice.post("/api/ai/queue?validate=late", body)
    assert answer.status_code == 200
    found = alice.finished(answer.json()["generations"][0]["generation_id"])
    assert (found["status"], found["error_code"]) == ("failed", "invalid_input")
    assert "aspect_ratio must be one of" in found["error_message"]
    assert found["aspect_ratio"] == "7:5"


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ({}, "input_image is required"),
        ({"input_image": "nonsense"}, "input_image"),
        ({"input_image": []}, "input_image"),
    ],
)
def test_late_validation_is_of_pictures_too(alice: Tenant, pictures: dict[str, Any], said: str) -> None:
    body = {"model": "quick", "prompt": "x", **pictures}
    assert alice.post("/api/ai/queue", body).status_code == 400
    answer = alice.post("/api/ai/queue?validate=late", body)
    assert answer.status_code == 200, answer.text
    found = alice.finished(answer.json()["generations"][0]["generation_id"])
    assert (found["status"], found["error_code"]) == ("failed", "invalid_input")
    assert said in found["error_message"]


@pytest.mark.parametrize(
    "bad",
    [{"guidance": math.nan}, {"prompt": "a" * 100_000}, {"junk": "x" * 100_000}, {"seed": {"a": ["b"] * 1000}}],
    ids=["NaN", "long prompt", "long unknown field", "nested"],
)
def test_what_is_recorded_of_a_late_refusal_is_bounded_and_readable(
    alice: Tenant, tiny: str, bad: dict[str, Any]
) -> None:
    body = json.dumps({"model": "quick", "prompt": "x", "input_image": tiny, **bad})
    answer = alice.post("/api/ai/queue?validate=late", data=body)
    assert answer.status_code == 200, answer.text
    polled = alice.get(f"/api/ai/queue/{answer.json()['generations'][0]['generation_id']}")
    assert polled.json()["status"] == "failed"
    assert len(polled.content) < 5000
    assert alice.get("/api/ai/queue?status=failed").status_code == 200
