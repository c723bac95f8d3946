"""Promise: whatever happens, and at any level, no prompt, picture, key, token, signed URL or secret is written to a log."""

import base64
import contextlib
import itertools
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests

from infra import embedded, stack_options
from storage.contracts import access
from tests import web
from tests.conftest import TENANTS, Tenant, eventually
from tests.faults.conftest import supervised
from tests.service.conftest import darkroom_admin

MARK = f"unspeakable{secrets.token_hex(6)}"
"""Stands in whatever is a secret of the caller's."""


traced: dict[str, list[web.Received]] = {}
"""What each stack sent to its collector of traces."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Stack]:
    port = web.free_port()
    own = {
        "DARKROOM_TRACES_ENDPOINT": f"http://127.0.0.1:{port}/v1/traces",
        "DARKROOM_LOG_LEVEL": "DEBUG",
        "DARKROOM_LOG_FORMAT": "json",
        "DARKROOM_MODELS": '["quick", "absent", "lethal"]',
    }
    with (
        web.receiving(port, itertools.repeat(200)) as spans,
        supervised(tmp_path_factory.mktemp("talkative"), **own) as victim,
    ):
        traced[victim.stack.url] = spans
        yield victim.stack


def _logs(stack: embedded.Stack) -> dict[str, str]:
    logs = {file.name: file.read_text() for file in (stack.options.data_dir / "logs").iterdir()}
    return {**logs, "traces": b"".join(one.body for one in traced[stack.url]).decode(errors="replace")}


def _lived(stack: embedded.Stack, tiny: str) -> list[str]:
    """Do everything that may go well or wrong. Returns what must not have been written."""
    alice = Tenant(stack.url, "alice", TENANTS["alice"])
    asked: dict[str, Any] = {"model": "quick", "prompt": f"make it {MARK}", "input_image": tiny}
    port = web.free_port()
    remote = f"http://127.0.0.1:{port}/x.png?signature={MARK}"
    done = alice.finished(alice.post("/api/ai/queue", asked).json()["generations"][0]["generation_id"])
    requests.get(done["result_url"], timeout=10)
    for change in (
        # Ends its process, with spans that were not sent yet: those looked for come later.
        {"model": "lethal"},
        {"input_image": remote}, {"input_image": f"https://{MARK}.invalid/x.png"},
        {"input_image": f"data:image/png;base64,{MARK}"},
        {"model": "absent"}, {"num_inference_steps": MARK}, {MARK: 1},
        {"webhook_url": f"https://127.0.0.1/{MARK}", "webhook_secret": MARK},
    ):  # fmt: skip
        answer = alice.post("/api/ai/queue", {**asked, **change})
        if answer.status_code == 200:
            alice.finished(answer.json()["generations"][0]["generation_id"])
    alice.post("/v2/quick/run", {"input": {"prompt": MARK, "image": tiny}, "webhook": f"http://127.0.0.1:1/{MARK}"})
    alice.post("/api/ai/images/edit", {**asked, "response_format": "b64_json"})
    requests.post(f"{stack.url}/api/ai/queue", data=f'{{"prompt": "{MARK}', headers=alice.headers, timeout=10)
    requests.get(f"{stack.url}/api/ai/queue", headers={"Authorization": f"Bearer {MARK}"}, timeout=10)
    made = darkroom_admin(stack, "keys", "create", "zoe").stdout.strip()
    zoe = Tenant(stack.url, "zoe", made)
    token = zoe.post("/api/ai/tokens", {"purpose": "events"}).json()["token"]
    with requests.get(f"{stack.url}/api/events?token={token}", stream=True, timeout=10) as stream:
        next(stream.iter_lines())
    zoe.delete(f"/api/ai/queue/{zoe.enqueue(tiny, prompt=MARK)}?erase=true")
    _survive_a_store_that_is_gone(stack, alice, asked)
    kept = json.loads((stack.options.data_dir / stack_options.KEPT).read_text())
    picture = requests.get(done["result_url"], timeout=10).content
    return [
        MARK, *TENANTS.values(), made, made.rpartition("_")[2], token, access.digest(made), "X-Amz-Signature", "AWS4-HMAC",
        tiny.partition(",")[2][:40], base64.b64encode(picture).decode()[:60],
        *(kept[name] for name in ("valkey_password", "s3_secret_access_key", "secret", "api_key")),
    ]  # fmt: skip


def _survive_a_store_that_is_gone(stack: embedded.Stack, alice: Tenant, asked: dict[str, Any]) -> None:
    """Faults are logged at length: have the store and the object store die while work is under way."""
    for name in ("valkey", "s3"):
        psutil.Process(stack.children[name].pid).kill()
        with contextlib.suppress(requests.RequestException):
            alice.post("/api/ai/queue", asked)
        eventually(lambda: requests.get(f"{stack.url}/health/ready", timeout=10).status_code == 200)
    answer = eventually(lambda: (sent := alice.post("/api/ai/queue", asked)).status_code == 200 and sent)
    again = answer.json()["generations"][0]["generation_id"]
    assert alice.finished(again)["status"] == "succeeded"


def test_no_log_holds_a_prompt_a_key_a_picture_or_a_secret(stack: embedded.Stack, tiny: str) -> None:
    unspeakable = _lived(stack, tiny)
    for traced_too in ("POST /api/ai/queue", "input_unreachable"):
        eventually(lambda said=traced_too: said in _logs(stack)["traces"])
    logs = _logs(stack)
    assert {"api.log", "worker-1.log", "housekeeping.log"} <= logs.keys()
    found = {(name, secret) for name, text in logs.items() for secret in unspeakable if secret in text}
    assert found == set()


def test_a_request_is_followed_by_its_id_and_a_generation_by_its_own(stack: embedded.Stack, tiny: str) -> None:
    alice = Tenant(stack.url, "alice", TENANTS["alice"])
    asked = {"model": "quick", "prompt": "x", "input_image": tiny}
    answer = alice.post("/api/ai/queue", asked, headers={"X-Request-Id": "order-7"})
    assert answer.headers["X-Request-Id"] == "order-7"
    id_ = answer.json()["generations"][0]["generation_id"]
    alice.finished(id_)
    made = alice.get("/api/ai/queue", headers={"X-Request-Id": "a b"}).headers["X-Request-Id"]
    assert re.fullmatch("[0-9a-f]{32}", made), "an id that is not plain is not written anywhere"

    def lines(name: str, **about: str) -> list[str]:
        entries = [json.loads(line) for line in _logs(stack)[name].splitlines() if line.startswith("{")]
        return [one["message"] for one in entries if about.items() <= one.items()]

    assert lines("api.log", request_id="order-7") == [f"accepted {id_}"]
    assert eventually(lambda: f"{id_} succeeded" in lines("worker-1.log", generation_id=id_))


def test_our_own_processes_log_json_objects(stack: embedded.Stack) -> None:
    for name in ("api.log", "worker-1.log"):
        lines = [line for line in _logs(stack)[name].splitlines() if line.startswith("{")]
        assert lines, name
        assert {"time", "level", "logger", "message"} <= json.loads(lines[0]).keys()
