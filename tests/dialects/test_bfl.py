"""Black Forest Labs' API. It has no official client: its pages show plain HTTP."""

import base64
import hashlib
import hmac
from typing import Any

import pytest
import requests

from tests.conftest import PHOTOGRAPH, Receiving, Tenant, eventually
from tests.dialects.conftest import PROMPT, pixels


def ask(bella: Tenant, route: str, **body: object) -> requests.Response:
    return requests.post(f"{bella.url}/v1/{route}", json=body, headers={"x-key": bella.key}, timeout=30)


def polled(bella: Tenant, url: str) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = requests.get(url, headers={"x-key": bella.key}, timeout=10).json()
        return None if found["status"] == "Pending" else found

    found: dict[str, Any] = eventually(ended)
    return found


@pytest.mark.parametrize("route", ["flux-kontext-dev", "flux-kontext-pro", "flux-kontext-max"])
def test_kontext_takes_bare_base64_and_is_polled(bella: Tenant, route: str) -> None:
    image = base64.b64encode(PHOTOGRAPH.read_bytes()).decode()
    task = ask(bella, route, prompt=PROMPT, input_image=image, seed=0, steps=2).json()
    found = polled(bella, task["polling_url"])
    assert (found["id"], found["status"], found["progress"]) == (task["id"], "Ready", 1.0)
    assert found["result"]["seed"] == 0
    assert pixels(requests.get(found["result"]["sample"], timeout=10).content)[0] == (128, 128)


@pytest.mark.parametrize("route", ["flux-2-pro", "flux-2-max", "flux-2-flex", "flux-2-dev", "flux-2-klein-4b"])
def test_flux_2_makes_pictures_with_and_without_inputs(bella: Tenant, tiny: str, route: str) -> None:
    plain = ask(bella, route, prompt=PROMPT, width=96, height=64, steps=1).json()
    edited = ask(bella, route, prompt=PROMPT, input_image=tiny, input_image_2=tiny, steps=1).json()
    sample = polled(bella, plain["polling_url"])["result"]["sample"]
    assert pixels(requests.get(sample, timeout=10).content)[0] == (96, 64)
    assert polled(bella, edited["polling_url"])["status"] == "Ready"


def test_a_task_that_is_not_there(bella: Tenant, ruth: Tenant, tiny: str) -> None:
    url = f"{bella.url}/v1/get_result?id=00000000-0000-0000-0000-000000000000"
    assert polled(bella, url)["status"] == "Task not found"
    task = ask(bella, "flux-kontext-dev", prompt=PROMPT, input_image=tiny, steps=1).json()
    assert polled(ruth, task["polling_url"])["status"] == "Task not found", "another's"
    assert polled(bella, task["polling_url"])["status"] == "Ready"


def test_a_moderated_request_and_a_failed_one(bella: Tenant, tiny: str) -> None:
    task = ask(bella, "flux-kontext-dev", prompt="child porn", input_image=tiny).json()
    assert polled(bella, task["polling_url"])["status"] == "Request Moderated"
    task = ask(bella, "flux-kontext-dev", prompt=PROMPT, input_image="http://127.0.0.1:1/x.png").json()
    failed = polled(bella, task["polling_url"])
    assert (failed["status"], failed["details"]["error_code"]) == ("Error", "input_unreachable")


def test_a_webhook_is_signed_with_the_callers_secret(bella: Tenant, tiny: str, hooks: tuple[str, Receiving]) -> None:
    url, receiving = hooks
    with receiving() as received:
        task = ask(
            bella,
            "flux-kontext-dev",
            prompt=PROMPT,
            input_image=tiny,
            steps=1,
            webhook_url=url,
            webhook_secret="theirs",
        ).json()
        (hook,) = eventually(lambda: received)
    assert (task["status"], task["webhook_url"]) == ("Pending", url)
    assert (hook.json["id"], hook.json["status"]) == (task["id"], "Ready")
    expected = "sha256=" + hmac.new(b"theirs", hook.body, hashlib.sha256).hexdigest()
    assert hook.headers["x-bfl-signature"] == expected
    polled_natively = bella.get(f"/api/ai/queue/{task['id']}").text
    assert "theirs" not in polled_natively
    assert url not in polled_natively, "a page may poll it"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"safety_tolerance": 7}, "safety_tolerance"),
        ({"aspect_ratio": "22:9"}, "aspect_ratio"),
        ({"aspect_ratio": "wide"}, "aspect_ratio"),
        ({"prompt_upsampling": True}, "prompt_upsampling"),
        ({"guidance": 1.4}, "guidance"),
        ({"webhook_url": "ftp://x"}, "webhook_url"),
        ({"input_image": None}, "input_image"),
    ],
)
def test_bad_input_is_told_by_name(bella: Tenant, tiny: str, body: dict[str, object], field: str) -> None:
    refused = ask(bella, "flux-kontext-dev", **{"prompt": PROMPT, "input_image": tiny, **body})
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", field]


def test_no_key_and_no_model(bella: Tenant) -> None:
    assert requests.post(f"{bella.url}/v1/flux-2-dev", json={"prompt": "x"}, timeout=10).status_code == 403
    assert ask(bella, "flux-9-dev", prompt=PROMPT).status_code == 404


def test_flex_has_its_own_defaults(bella: Tenant) -> None:
    made = {
        route: bella.finished(ask(bella, route, prompt=PROMPT, width=64, height=64).json()["id"])["receipt"]
        for route in ("flux-2-flex", "flux-2-pro")
    }
    assert (made["flux-2-flex"]["steps"], made["flux-2-flex"]["guidance"]) == (50, 5.0)
    assert made["flux-2-pro"]["steps"] != 50
    assert ask(bella, "flux-2-flex", prompt=PROMPT, steps=51).status_code == 422
