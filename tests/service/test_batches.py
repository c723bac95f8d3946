"""Batches: thousands of edits in one request, each exactly once, and one answer for all."""

import contextlib
import csv
import io
import json
import random
from collections import Counter
from typing import Any

import pytest
import requests
from PIL import Image

from infra import embedded
from storage.contracts import batches
from storage.objects import Objects
from tests.conftest import TENANTS, Receiving, Tenant, data_uri, encoded, eventually
from tests.service.conftest import Make


@pytest.fixture
def carol(stack: embedded.Stack) -> Tenant:
    return Tenant(stack.url, "carol", TENANTS["carol"])


def line(custom_id: str | None, image: str, **fields: object) -> dict[str, Any]:
    named = {} if custom_id is None else {"custom_id": custom_id}
    return {**named, "model": "quick", "prompt": "make it blue", "input_image": image, **fields}


def post(tenant: Tenant, lines: list[Any], query: str = "", **headers: str) -> requests.Response:
    body = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    sent = {"Content-Type": "application/jsonl", **headers}
    return tenant.post(f"/api/ai/batches{query}", data=body.encode(), headers=sent)


def made(tenant: Tenant, lines: list[Any], query: str = "", **headers: str) -> dict[str, Any]:
    answer = post(tenant, lines, query, **headers)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def read(tenant: Tenant, id_: str) -> dict[str, Any]:
    answer = tenant.get(f"/api/ai/batches/{id_}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def over(tenant: Tenant, id_: str) -> dict[str, Any]:
    return eventually(  # type: ignore[no-any-return]
        lambda: found if (found := read(tenant, id_))["status"] in ("completed", "cancelled") else None, within_s=120
    )


def rows(batch: dict[str, Any]) -> list[dict[str, Any]]:
    body = requests.get(batch["results"]["jsonl_url"], timeout=30).text
    return [json.loads(one) for one in body.splitlines()]


def test_every_line_is_answered_for_and_runs_once(carol: Tenant, tiny: str) -> None:
    good = [line(f"row {number}", tiny, seed=number, metadata={"n": number}) for number in range(30)]
    bad = [
        line("inside", tiny, webhook_url="http://10.0.0.7/"), line("private", "http://10.0.0.7/a.png"),
        "{not json", "[1]", line(None, tiny), line("row 3", tiny), line("steps", tiny, num_inference_steps=10**6),
        line("nothing", tiny, model="nothing"), line("unknown", tiny, colour="red"), line("many", tiny, num_generations=2),
        line("no picture", "data:image/png;base64,AAAA"),
    ]  # fmt: skip
    batch = made(carol, [*good, *bad], "?name=autumn")
    told = {one["custom_id"]: one for one in batch["lines"]}
    assert [told[f"row {number}"]["status"] for number in range(30)] == ["accepted"] * 30
    refused = [one for one in batch["lines"] if one["status"] == "refused"]
    assert [one["line"] for one in refused] == list(range(31, 42))
    assert [one["error"]["field"] for one in refused] == [
        "webhook_url", "input_image", None, None, "custom_id", "custom_id", "num_inference_steps", "model", "colour",
        "num_generations", "input_image",
    ]  # fmt: skip
    assert told["line 36: row 3"]["error"]["message"].startswith("custom_id")
    done = over(carol, batch["batch_id"])
    assert done["status"] == "completed"
    assert done["counts"] == {
        "total": 41, "refused": 11, "waiting": 0, "unfinished": 0, "succeeded": 30, "failed": 0, "cancelled": 0
    }  # fmt: skip
    found = rows(done)
    assert [one["custom_id"] for one in found] == [one["custom_id"] for one in batch["lines"]]
    assert Counter(one["status"] for one in found) == {"succeeded": 30, "refused": 11}
    for one in found[:30]:
        assert one["generation_id"] == told[one["custom_id"]]["generation_id"]
        assert f"row {one['seed']}" == one["custom_id"]
        assert requests.get(one["result_url"], timeout=30).status_code == 200
    table = list(csv.DictReader(io.StringIO(requests.get(done["results"]["csv_url"], timeout=30).text)))
    assert [one["status"] for one in table] == [one["status"] for one in found]
    one = carol.get(f"/api/ai/queue/{told['row 7']['generation_id']}").json()
    assert (one["custom_id"], one["metadata"], one["group"]) == ("row 7", {"n": 7}, batch["batch_id"])
    listed = carol.get(f"/api/ai/queue?status=all&limit=200&group={batch['batch_id']}").json()
    assert listed["count"] == 30
    assert carol.get("/api/ai/batches").json()["batches"][0]["name"] == "autumn"


def test_nothing_is_a_batch_of_which_no_line_is_an_edit(carol: Tenant, tiny: str) -> None:
    for lines, told in (([], "1 to 10000 lines"), ([line("a", tiny, model="nothing")], "No line is an edit")):
        answer = post(carol, lines)
        assert answer.status_code in (400, 404), answer.text
        assert told in answer.json()["error"]["message"]
    many = post(carol, ["{}"] * (batches.MAX_LINES + 1))
    assert "got 10001" in many.json()["error"]["message"]
    more = carol.post("/api/ai/batches", data=b"{}\r" * 10**6).json()["error"]["message"]
    assert more == "The body must have 1 to 10000 lines", "they are not looked at, so not counted"


def test_the_same_key_is_the_same_batch(carol: Tenant, tiny: str) -> None:
    lines, key = [line("a", tiny), line("b", tiny)], {"Idempotency-Key": "autumn-1"}
    first, again = made(carol, lines, **key), made(carol, lines, **key)
    assert again["batch_id"] == first["batch_id"]
    assert again["lines"] == first["lines"]
    assert post(carol, lines[:1], **key).status_code == 422
    assert over(carol, first["batch_id"])["counts"]["succeeded"] == 2


def test_another_tenants_batch_is_none(carol: Tenant, alice: Tenant, tiny: str) -> None:
    id_ = made(carol, [line("a", tiny)])["batch_id"]
    path = f"/api/ai/batches/{id_}"
    for answer in (alice.get(path), alice.post(f"{path}/cancel"), alice.post(f"{path}/retry")):
        assert answer.status_code == 404
    assert id_ not in alice.get("/api/ai/batches").text
    over(carol, id_)


def test_its_end_is_told_once_by_event_and_webhook(carol: Tenant, tiny: str, hooks: tuple[str, Receiving]) -> None:
    url, receiving = hooks
    with receiving() as received:
        id_ = made(carol, [line("a", tiny), line("b", tiny)], f"?webhook_url={url}")["batch_id"]
        done = over(carol, id_)
        eventually(lambda: received)
        (hook,) = received
        body = json.loads(hook.body)
    assert (body["type"], body["data"]["batch_id"], body["data"]["status"]) == (
        "media_batch_completed",
        id_,
        "completed",
    )
    assert body["data"]["counts"] == done["counts"]
    found = requests.get(body["data"]["results"]["jsonl_url"], timeout=30).text
    assert len(found.splitlines()) == 2
    with requests.get(
        f"{carol.url}/api/events?types=media_batch_completed&generation_id={id_}", headers=carol.headers, stream=True, timeout=30
    ) as stream:  # fmt: skip
        data = (one for one in stream.iter_lines() if one.startswith(b"data:"))
        next(data)
        told = json.loads(next(data).removeprefix(b"data: "))
    assert told == {"batch_id": id_, "status": "completed", "counts": {
        "total": 2, "refused": 0, "succeeded": 2, "failed": 0, "cancelled": 0}}  # fmt: skip


def test_what_is_cancelled_ends_and_says_what_never_began(carol: Tenant, tiny: str) -> None:
    id_ = made(carol, [line(str(number), tiny, model="slow") for number in range(20)])["batch_id"]
    assert carol.post(f"/api/ai/batches/{id_}/cancel").json()["status"] in ("cancelling", "cancelled")
    done = over(carol, id_)
    assert done["status"] == "cancelled"
    counts = done["counts"]
    assert counts["cancelled"] + counts["succeeded"] == 20
    assert counts["cancelled"] > 0
    assert Counter(one["status"] for one in rows(done)) == Counter(
        {name: counts[name] for name in ("cancelled", "succeeded") if counts[name]}
    )
    assert carol.post(f"/api/ai/batches/{id_}/cancel").json()["status"] == "cancelled"


def test_of_a_batch_that_is_cancelled_no_prompt_and_no_picture_is_kept(
    make: Make, stack: embedded.Stack, tiny: str
) -> None:
    zoe = make("zoe", per_minute=1)
    id_ = made(zoe, [line(str(number), tiny) for number in range(3)])["batch_id"]
    zoe.post(f"/api/ai/batches/{id_}/cancel")
    over(zoe, id_)
    with contextlib.closing(Objects(stack.store)) as objects:
        kept = {one.key: objects.get(one.key) for one in objects.entries(batches.folder_of("zoe", id_))}
    assert len(kept) == 3, "the lines' names, and two manifests"
    assert not [key for key, body in kept.items() if b"make it blue" in body]


def test_a_batchs_pictures_count_as_bytes_that_its_key_sends(make: Make) -> None:
    noise = data_uri(encoded(Image.frombytes("RGB", (500, 500), random.Random(1).randbytes(750_000)), "PNG"))
    bounded = make("zoe", mb_per_minute=1)
    answer = post(bounded, [line("a", noise), line("b", noise)])
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")
    assert post(bounded, [line("a", noise)]).status_code == 202
    assert post(bounded, [line("b", noise)]).status_code == 429


def test_a_batchs_key_is_as_long_as_others_may_be(carol: Tenant, tiny: str) -> None:
    for key in ("", "k" * 256):
        refused = post(carol, [line("a", tiny)], **{"Idempotency-Key": key})
        assert (refused.status_code, refused.json()["error"]["field"]) == (400, "Idempotency-Key")


def test_what_failed_is_retried_under_the_same_ids(carol: Tenant, tiny: str) -> None:
    gone = "http://127.0.0.1:1/none.png"
    batch = made(carol, [line("good", tiny), line("gone", gone)])
    done = over(carol, batch["batch_id"])
    assert (done["counts"]["succeeded"], done["counts"]["failed"]) == (1, 1)
    again = carol.post(f"/api/ai/batches/{batch['batch_id']}/retry").json()
    assert again["status"] == "running"
    done = over(carol, batch["batch_id"])
    assert (done["counts"]["succeeded"], done["counts"]["failed"]) == (1, 1)
    failed = carol.get(f"/api/ai/queue/{batch['lines'][1]['generation_id']}").json()
    assert failed["error_code"] == "input_unreachable"
    assert len(rows(done)) == 2
    assert carol.get(f"/api/ai/queue?status=all&group={batch['batch_id']}").json()["count"] == 2


def test_a_revoked_key_ends_its_batches(make: Make, carol: Tenant, operator: Tenant, tiny: str) -> None:
    zoe = make("zoe", per_minute=60)
    batch = made(zoe, [line(str(number), tiny) for number in range(40)])
    eventually(lambda: read(zoe, batch["batch_id"])["counts"]["waiting"] < 40)
    key_id = zoe.key.removeprefix("dk_live_")[:10]
    other = make("zoe")
    assert operator.delete(f"/api/admin/keys/{key_id}").status_code in (200, 204)
    done = over(other, batch["batch_id"])
    assert done["status"] == "cancelled"
    assert 0 < done["counts"]["succeeded"] < 40


def test_all_that_a_tenant_has_is_erased_with_its_batches(make: Make, tiny: str) -> None:
    quinn = make("quinn")
    id_ = made(quinn, [line("a", tiny, prompt="the secret harbour")])["batch_id"]
    url = over(quinn, id_)["results"]["jsonl_url"]
    assert quinn.delete("/api/ai/queue?erase=everything").status_code == 200
    assert quinn.get(f"/api/ai/batches/{id_}").status_code == 404
    assert quinn.get("/api/ai/batches").json() == {"batches": []}
    assert requests.get(url, timeout=30).status_code == 404
