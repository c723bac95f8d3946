"""POST /api/ai/images/edit: ask and wait."""

import base64
import json
import os
import socket

import pytest
import requests

from infra import embedded
from tests.conftest import TENANTS, Tenant, eventually

pytestmark = pytest.mark.usefixtures("nobody_waits")


def test_the_answer_has_a_url(alice: Tenant, tiny: str) -> None:
    answer = alice.post("/api/ai/images/edit", {"model": "quick", "prompt": "x", "input_image": tiny}).json()
    assert answer["model"] == "quick"
    assert isinstance(answer["created"], int)
    assert answer["image_url"] == answer["images"][0]["url"]
    assert requests.get(answer["images"][0]["url"], timeout=10).content[8:12] == b"WEBP"


def test_the_answer_has_the_bytes_when_asked(alice: Tenant, tiny: str) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny, "response_format": "b64_json", "output_format": "png"}
    answer = alice.post("/api/ai/images/edit", body).json()
    assert base64.b64decode(answer["images"][0]["b64_json"]).startswith(b"\x89PNG")
    assert "image_url" not in answer


def test_a_picture_is_made_of_a_prompt_alone(alice: Tenant) -> None:
    body = {"model": "small-flux2", "prompt": "a cat", "width": 64, "height": 64, "num_inference_steps": 1}
    known = [one["id"] for one in alice.get("/api/ai/models").json()["data"] if one["capabilities"]["text_to_image"]]
    answer = alice.post("/api/ai/images/generate", {**body, "model": known[0]})
    assert answer.status_code == 200, answer.text
    assert requests.get(answer.json()["image_url"], timeout=10).status_code == 200


def test_several_at_once(alice: Tenant, tiny: str) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny, "num_generations": 3}
    assert len({image["url"] for image in alice.post("/api/ai/images/edit", body).json()["images"]}) == 3


def test_a_failed_edit_is_an_error_with_its_reason(alice: Tenant) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": "http://127.0.0.1:1/a.png"}
    answer = alice.post("/api/ai/images/edit", body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "input_unreachable"


def test_a_client_that_hangs_up_cancels_its_edit(stack: embedded.Stack, tiny: str) -> None:
    hugh = Tenant(stack.url, "hugh", TENANTS["hugh"])
    body = json.dumps({"model": "slow", "prompt": "x", "input_image": tiny, "num_generations": 2}).encode()
    host, _, port = stack.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /api/ai/images/edit HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hugh.key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        eventually(lambda: hugh.get("/api/ai/queue").json()["count"] == 2)
    eventually(lambda: hugh.get("/api/ai/queue?status=cancelled").json()["count"] == 2)


def test_a_client_that_hangs_up_with_a_key_can_come_back_for_its_edit(stack: embedded.Stack, tiny: str) -> None:
    hugh = Tenant(stack.url, "hugh", TENANTS["hugh"])
    body = {"model": "slow", "prompt": "x", "input_image": tiny}
    headers = {"Idempotency-Key": f"come-back-{os.urandom(6).hex()}"}
    with pytest.raises(requests.Timeout):
        requests.post(f"{hugh.url}/api/ai/images/edit", json=body, headers={**hugh.headers, **headers}, timeout=1)
    answer = hugh.post("/api/ai/images/edit", body, headers=headers)
    assert answer.status_code == 200, answer.text
    found = hugh.get(f"/api/ai/queue/{answer.json()['generation_id']}").json()
    assert (found["status"], found["attempts"]) == ("succeeded", 1)
