"""The fal queue, by its Python client, over https as it insists."""

import base64
import hashlib
import json
import ssl
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import fal_client
import fal_client.client
import httpx
import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fal_client.client import FalClientHTTPError

from tests.conftest import Receiving, Tenant, eventually
from tests.dialects.conftest import PROMPT, pixels, small_picture

APP = "fal-ai/flux-kontext/dev"


@pytest.fixture
def fal(
    secure: tuple[str, object], trusting: ssl.SSLContext, faye: Tenant, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    host = secure[0].removeprefix("https://")
    monkeypatch.setenv("FAL_KEY", faye.key)
    monkeypatch.setattr(fal_client.client, "QUEUE_URL_FORMAT", f"https://{host}/")
    monkeypatch.setattr(fal_client.client, "RUN_URL_FORMAT", f"https://{host}/run/")
    # Uploads have no setting of their own.
    monkeypatch.setattr(fal_client.client, "REST_URL", f"https://{host}")
    monkeypatch.setattr(fal_client.client, "CDN_URL", f"https://{host}")
    monkeypatch.setenv("SSL_CERT_FILE", str(secure[1]))
    return fal_client


@pytest.fixture
def client(fal: ModuleType, faye: Tenant) -> Iterator[fal_client.SyncClient]:
    one = fal_client.SyncClient(key=faye.key)
    yield one
    one._client.close()


def _fetched(faye: Tenant, url: str) -> bytes:
    """What is behind a URL of the other API process, whose certificate `requests` does not know, from the first."""
    return requests.get(faye.url + "/" + url.partition("//")[2].partition("/")[2], timeout=10).content


def test_subscribe_tells_how_it_goes_and_returns_the_pictures(
    client: fal_client.SyncClient, faye: Tenant, photograph: str
) -> None:
    told: list[object] = []
    arguments = {"prompt": PROMPT, "image_url": photograph, "num_inference_steps": 4, "seed": 3}
    result = client.subscribe(APP, arguments, on_queue_update=told.append, with_logs=True)
    assert isinstance(told[-1], fal_client.Completed)
    (image,) = result["images"]
    assert result["seed"] == 3
    assert pixels(_fetched(faye, image["url"]))[0] == (image["width"], image["height"])
    assert image["content_type"] == "image/jpeg"


def test_several_pictures_are_one_request(client: fal_client.SyncClient) -> None:
    handle = client.submit(
        "fal-ai/flux-2", {"prompt": PROMPT, "num_images": 3, "image_size": {"width": 96, "height": 64}}
    )
    images = handle.get()["images"]
    assert [(image["width"], image["height"]) for image in images] == [(96, 64)] * 3
    assert len({image["url"] for image in images}) == 3


def test_a_request_is_found_again_by_its_id(client: fal_client.SyncClient) -> None:
    handle = client.submit("fal-ai/flux-2/edit", {"prompt": PROMPT, "num_inference_steps": 1})
    again = client.get_handle("fal-ai/flux-2/edit", handle.request_id)
    assert again.get()["prompt"] == PROMPT
    assert isinstance(client.status("fal-ai/flux-2/edit", handle.request_id), fal_client.Completed)


def test_a_running_request_is_cancelled(client: fal_client.SyncClient, tiny: str) -> None:
    handle = client.submit("fal-ai/slow", {"prompt": PROMPT, "image_url": tiny})
    eventually(lambda: isinstance(handle.status(), fal_client.InProgress))
    handle.cancel()
    status = handle.status()
    assert isinstance(status, fal_client.Completed)
    assert status.error_type == "client_cancelled"
    with pytest.raises(FalClientHTTPError):
        handle.cancel()
    began = time.monotonic()
    with pytest.raises(FalClientHTTPError) as ended:
        handle.get()
    assert ended.value.response.status_code == 499, "at 409 the client asks again, ten times"
    assert (
        ended.value.response.json()["error_type"]
        == ended.value.response.headers["X-Fal-Error-Type"]
        == "client_cancelled"
    )
    assert time.monotonic() - began < 5


def test_a_request_that_waits_too_long_completes_with_an_error(faye: Tenant, tiny: str) -> None:
    ahead = [faye.post("/fal-ai/slow", {"prompt": PROMPT, "image_url": tiny}).json() for _ in range(2)]
    made = faye.post(
        "/fal-ai/slow", {"prompt": PROMPT, "image_url": tiny}, headers={"X-Fal-Request-Timeout": "1"}
    ).json()
    assert faye.finished(made["request_id"])["status"] == "failed"
    status = requests.get(made["status_url"], headers=faye.headers, timeout=10)
    assert (status.status_code, status.json()["error_type"]) == (200, "request_timeout")
    result = requests.get(made["response_url"], headers=faye.headers, timeout=10)
    assert (result.status_code, result.headers["X-Fal-Request-Timeout-Type"]) == (504, "user"), (
        "no client submits it anew"
    )
    assert result.headers["x-fal-request-id"] == made["request_id"]
    for one in ahead:
        requests.put(one["cancel_url"], headers=faye.headers, timeout=10)


def test_run_waits_for_the_result(client: fal_client.SyncClient, tiny: str) -> None:
    result = client.run("fal-ai/quick", {"prompt": PROMPT, "image_url": tiny, "sync_mode": True})
    assert result["images"][0]["url"].startswith("data:image/png;base64,")


def test_bad_input_is_told_by_name(client: fal_client.SyncClient, tiny: str) -> None:
    with pytest.raises(FalClientHTTPError) as refused:
        client.submit(APP, {"prompt": PROMPT, "image_url": tiny, "guidance_scale": 21})
    answer = refused.value.response
    assert (answer.status_code, answer.headers["X-Fal-Retryable"]) == (422, "false")
    (fault,) = answer.json()["detail"]
    assert fault.pop("msg").startswith("guidance_scale must be")
    url = "https://docs.fal.ai/errors#value_error"
    assert fault == {"loc": ["body", "guidance_scale"], "type": "value_error", "url": url}


def test_a_filtered_request_completes_with_an_error(client: fal_client.SyncClient, tiny: str) -> None:
    handle = client.submit("fal-ai/quick", {"prompt": "child porn", "image_url": tiny})
    with pytest.raises(FalClientHTTPError) as ended:
        handle.get()
    assert ended.value.response.json()["detail"][0]["type"] == "content_policy_violation"
    status = handle.status()
    assert isinstance(status, fal_client.Completed)
    assert status.error_type == "content_policy_violation"


def test_a_picture_that_cannot_be_fetched_is_told_in_fals_words(client: fal_client.SyncClient) -> None:
    handle = client.submit("fal-ai/quick", {"prompt": PROMPT, "image_url": "http://127.0.0.1:1/a.png"})
    with pytest.raises(FalClientHTTPError) as ended:
        handle.get()
    (fault,) = ended.value.response.json()["detail"]
    assert (fault["loc"], fault["type"]) == (["body", "image_url"], "file_download_error")


def test_a_webhook_is_verified_with_the_public_key(faye: Tenant, tiny: str, hooks: tuple[str, Receiving]) -> None:
    url, receiving = hooks
    with receiving() as received:
        made = faye.post(f"/fal-ai/quick?fal_webhook={url}", {"prompt": PROMPT, "image_url": tiny})
        (hook,) = eventually(lambda: received)
    assert (hook.json["request_id"], hook.json["status"]) == (made.json()["request_id"], "OK")
    (key,) = requests.get(f"{faye.url}/.well-known/jwks.json", timeout=10).json()["keys"]
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "=="))
    named = [hook.headers[f"x-fal-webhook-{part}"] for part in ("request-id", "user-id", "timestamp")]
    message = "\n".join([*named, hashlib.sha256(hook.body).hexdigest()])
    public.verify(bytes.fromhex(hook.headers["x-fal-webhook-signature"]), message.encode())
    assert abs(int(named[2]) - time.time()) < 300


def test_a_webhook_tells_of_all_pictures_once_all_are_made(faye: Tenant, hooks: tuple[str, Receiving]) -> None:
    url, receiving = hooks
    body = {"prompt": PROMPT, "num_images": 3, "image_size": {"width": 96, "height": 64}, "num_inference_steps": 1}
    with receiving() as received:
        made = faye.post(f"/fal-ai/flux-2?fal_webhook={url}", body).json()
        (hook,) = eventually(lambda: received)
    result = requests.get(made["response_url"], headers=faye.headers, timeout=10).json()
    assert [one["file_name"] for one in hook.json["payload"]["images"]] == [
        one["file_name"] for one in result["images"]
    ]
    assert len(result["images"]) == 3


def test_a_webhook_tells_why_there_is_no_picture(faye: Tenant, tiny: str, hooks: tuple[str, Receiving]) -> None:
    url, receiving = hooks
    with receiving() as received:
        faye.post(f"/fal-ai/quick?fal_webhook={url}", {"prompt": "child porn", "image_url": tiny})
        (hook,) = eventually(lambda: received)
    assert (hook.json["status"], hook.json["payload"]["detail"][0]["type"]) == ("ERROR", "content_policy_violation")


def test_the_status_stream_ends_with_completed(faye: Tenant, tiny: str) -> None:
    made = faye.post("/fal-ai/slow", {"prompt": PROMPT, "image_url": tiny}).json()
    states = []
    with httpx.stream("GET", made["status_url"] + "/stream", headers=faye.headers, timeout=30) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line[6:])["status"])
    assert states[-1] == "COMPLETED"
    assert "IN_PROGRESS" in states
    assert states == sorted(states, key=["IN_QUEUE", "IN_PROGRESS", "COMPLETED"].index)


def test_what_is_not_there(faye: Tenant) -> None:
    url = "/fal-ai/quick/requests/00000000-0000-0000-0000-000000000000"
    assert faye.get(url).status_code == 404
    missing = requests.put(faye.url + url + "/cancel", headers=faye.headers, timeout=10)
    assert (missing.status_code, missing.json()) == (404, {"status": "NOT_FOUND"})
    assert faye.post("/fal-ai/nope", {"prompt": PROMPT}).status_code == 404


@pytest.fixture
def uploading(client: fal_client.SyncClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[fal_client.SyncClient]:
    """It never closes the connections that it uploads with."""
    make, made = fal_client.SyncClient._get_cdn_client, []

    def kept(client: fal_client.SyncClient) -> httpx.Client:
        made.append(make(client))
        return made[-1]

    monkeypatch.setattr(fal_client.SyncClient, "_get_cdn_client", kept)
    yield client
    for one in made:
        one.close()


@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
def test_a_file_is_uploaded_and_edited(uploading: fal_client.SyncClient, faye: Tenant, repository: Any) -> None:
    url = uploading.upload(small_picture(), "image/png", repository=repository)
    assert _fetched(faye, url) == small_picture()
    made = uploading.run("fal-ai/quick", {"prompt": PROMPT, "image_url": url})
    assert made["images"][0]["content_type"] == "image/png"
