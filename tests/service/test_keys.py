"""API keys that are made, limited, rotated and revoked while the service runs."""

import contextlib
import json
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from infra import embedded
from storage import connections, keys
from storage.contracts import access
from tests.conftest import Tenant, data_uri, encoded, eventually
from tests.service.conftest import PUBLIC, Make, darkroom_admin


def _id(caller: Tenant) -> str:
    return access.id_of(caller.key) or ""


def _refused(caller: Tenant, body: dict[str, Any]) -> tuple[int, str]:
    answer = caller.post("/api/ai/queue", {"model": "quick", "prompt": "x", **body})
    return answer.status_code, answer.json()["error"]["code"] if answer.status_code != 200 else ""


def test_a_key_of_a_new_tenant_edits_and_sees_its_own_alone(make: Make, alice: Tenant, tiny: str) -> None:
    zoe, again = make("zoe"), make("zoe", label="another")
    id_ = zoe.enqueue(tiny)
    assert zoe.finished(id_)["status"] == "succeeded"
    assert again.get(f"/api/ai/queue/{id_}").status_code == 200, "the keys of a tenant see the same"
    assert alice.get(f"/api/ai/queue/{id_}").status_code == 404
    assert zoe.get(f"/api/ai/queue/{alice.enqueue(tiny)}").status_code == 404


def test_a_key_is_shown_once_and_kept_as_a_digest_alone(operator: Tenant, stack: embedded.Stack, make: Make) -> None:
    zoe = make("zoe", label="for the site", per_minute=60)
    assert zoe.get("/api/ai/models").status_code == 200
    (listed,) = (one for one in operator.get("/api/admin/keys?tenant=zoe").json()["keys"] if one["id"] == _id(zoe))
    assert (listed["label"], listed["per_minute"], listed["scopes"]) == ("for the site", 60, ["submit", "read"])
    assert listed["last_used_at"] == pytest.approx(time.time(), abs=60)
    assert "key" not in listed
    assert "digest" not in listed
    secret = zoe.key.rpartition("_")[2]
    with contextlib.closing(connections.connect(stack.store)) as connection:
        kept = str([connection.hgetall(name) for name in connection.scan_iter(match=keys.API_KEY + "*")])
        told = str(connection.xrange(keys.AUDIT))
    assert access.digest(zoe.key) in kept
    assert secret not in kept + told


def test_only_its_secret_gives_the_use_of_a_key(operator: Tenant, make: Make, stack: embedded.Stack) -> None:
    zoe = make("zoe")
    bare = f"{access.PREFIX}{_id(zoe)}_{'A' * 32}"
    forged = Tenant(stack.url, "zoe", bare + access._checksum(bare))
    assert access.id_of(forged.key) == _id(zoe)
    assert forged.get("/api/ai/models").status_code == 401

    def used() -> object:
        keys_ = operator.get("/api/admin/keys?tenant=zoe").json()["keys"]
        return next(one for one in keys_ if one["id"] == _id(zoe))["last_used_at"]

    assert used() is None
    assert eventually(lambda: zoe.get("/api/ai/models").status_code == 200 and used())


@pytest.mark.parametrize(
    ("scopes", "may_read", "may_submit"),
    [(["read"], True, False), (["submit"], False, True), (["models"], False, False)],
)
def test_a_key_does_what_its_scopes_say(
    make: Make, tiny: str, scopes: list[str], may_read: bool, may_submit: bool
) -> None:
    zoe = make("zoe", scopes=scopes)
    assert zoe.get("/api/ai/queue").status_code == (200 if may_read else 403)
    assert _refused(zoe, {"input_image": tiny}) == ((200, "") if may_submit else (403, "forbidden"))
    assert zoe.get("/api/admin/keys").status_code == 403


def test_models_are_started_and_stopped_with_that_scope_alone(make: Make) -> None:
    plain, entitled = make("zoe"), make("zoe", scopes=["models"])
    for route in ("start", "stop"):
        assert plain.post(f"/v1/model-families/quick/{route}", {}).status_code == 403
    assert entitled.post("/v1/model-families/quick/stop", {}).status_code == 200


def test_a_key_starts_and_stops_what_it_may_use_alone(make: Make) -> None:
    narrow = make("zoe", scopes=["models"], models=["quick"], gpu_types=["cpu"])
    for route in ("start", "stop"):
        for model, sent in (("slow", {"gpu_type": "cpu"}), ("quick", {})):
            refused = narrow.post(f"/v1/model-families/{model}/{route}", sent)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden"), (route, model)
    assert narrow.post("/v1/model-families/quick/stop", {"gpu_type": "cpu"}).status_code == 200


def test_a_key_that_only_submits_is_told_ids_and_states(make: Make, tiny: str) -> None:
    zoe, submitter = make("zoe"), make("zoe", scopes=["submit"])
    id_ = zoe.enqueue(tiny)
    zoe.finished(id_)
    cancelled = submitter.post(f"/v1/predictions/{id_}/cancel").json()
    assert (set(cancelled), cancelled["status"]) == ({"id", "status", "urls"}, "succeeded")
    assert zoe.post(f"/v1/predictions/{id_}/cancel").json()["output"]
    failed = zoe.enqueue("http://127.0.0.1:1/x.png")
    zoe.finished(failed)
    assert set(submitter.post(f"/api/ai/queue/{failed}/retry").json()) == {"generation_id", "status"}
    line = {"custom_id": "1", "model": "quick", "prompt": "x", "input_image": tiny}
    batch = zoe.post("/api/ai/batches", data=json.dumps(line)).json()["batch_id"]
    assert eventually(lambda: zoe.get(f"/api/ai/batches/{batch}").json()["results"])
    assert submitter.post(f"/api/ai/batches/{batch}/cancel").json()["results"] is None


def test_a_key_that_only_reads_takes_no_output_away(make: Make, tiny: str) -> None:
    zoe, reader = make("zoe"), make("zoe", scopes=["read"])
    job = zoe.post("/v2/quick/run", {"input": {"prompt": "x", "image": tiny}}).json()["id"]
    path = f"/v2/quick/stream/{job}"
    assert eventually(lambda: reader.get(path).json()["stream"])
    assert reader.get(path).json()["stream"]
    assert zoe.get(path).json()["stream"]
    assert not zoe.get(path).json()["stream"]


def test_a_key_uses_the_models_and_gpu_types_that_it_may(make: Make, tiny: str) -> None:
    quick = make("zoe", models=["quick"], gpu_types=["cpu"])
    assert quick.finished(quick.enqueue(tiny))["status"] == "succeeded"
    assert _refused(quick, {"input_image": tiny, "model": "slow"}) == (403, "forbidden")
    assert _refused(quick, {"input_image": tiny, "gpu_type": "h100"})[0] in (400, 403)
    elsewhere = make("zoe", gpu_types=["b300"])
    assert _refused(elsewhere, {"input_image": tiny}) == (403, "forbidden")


def test_a_key_retries_what_it_may_run_alone(make: Make) -> None:
    full, limited = make("zoe"), make("zoe", models=["slow"])
    failed = full.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": "http://127.0.0.1:1/x.png"})
    id_ = failed.json()["generations"][0]["generation_id"]
    assert full.finished(id_)["status"] == "failed"
    assert limited.post(f"/api/ai/queue/{id_}/retry").status_code == 403
    assert full.post(f"/api/ai/queue/{id_}/retry").status_code == 200
    assert full.finished(id_)["status"] == "failed"


def test_a_page_that_an_operator_signed_in_makes_no_keys(operator: Tenant, make: Make) -> None:
    powerful = make("zoe", scopes=["read", "submit", "admin"])
    link = powerful.post("/api/ai/tokens", {"purpose": "page", "origin": "http://page.example"}).json()["token"]
    answer = requests.post(
        f"{operator.url}/api/ai/tokens/sign-in",
        headers={"Authorization": f"Bearer {link}", "Origin": "http://page.example"}, timeout=10,
    )  # fmt: skip
    page = Tenant(operator.url, "zoe", answer.json()["token"])
    assert page.get("/api/ai/queue").status_code == 200, "from its own, without an origin"
    assert page.get("/api/admin/keys").status_code == 403
    assert page.get(f"/api/events?token={page.key}").status_code == 403, "not in an address"


def test_a_key_is_made_for_what_there_is(operator: Tenant) -> None:
    for rights in (
        {"models": ["nope"]},
        {"gpu_types": ["nope"]},
        {"scopes": ["root"]},
        {"scopes": []},
        {"tenant": "a/b"},
        {"x": 1},
    ):
        answer = operator.post("/api/admin/keys", {"tenant": "zoe", **rights})
        assert answer.status_code in (400, 404), answer.text
        assert next(iter(rights)).removesuffix("s") in answer.text or "nope" in answer.text
    before = operator.get("/api/admin/keys").json()
    headers = {**operator.headers, "Content-Type": "application/json"}
    for budget in ("1e999", "Infinity", "NaN"):
        body = f'{{"tenant": "zoe", "budget_usd": {budget}}}'
        answer = requests.post(f"{operator.url}/api/admin/keys", body, headers=headers, timeout=10)
        assert (answer.status_code, answer.json()["error"]["field"]) == (400, "budget_usd")
    assert operator.get("/api/admin/keys").json() == before


def test_filters_are_switched_off_by_a_key_that_may(make: Make, tiny: str) -> None:
    asked = {"input_image": tiny, "prompt": "nudify", "disable_safety_checker": True}
    assert _refused(make("zoe"), asked) == (400, "invalid_input")
    trusted = make("zoe", unfiltered=True)
    assert (
        trusted.finished(trusted.enqueue(tiny, **{k: v for k, v in asked.items() if k != "input_image"}))["status"]
        == "succeeded"
    )


def test_a_key_with_a_rate_is_told_when_to_come_again(make: Make, tiny: str) -> None:
    slow = make("zoe", per_minute=10)
    assert _refused(slow, {"input_image": tiny}) == (200, "")
    answer = slow.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": tiny})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_requests")
    assert 1 <= int(answer.headers["Retry-After"]) <= 6
    assert answer.headers["RateLimit-Policy"] == '"generations";q=10;w=60'
    assert answer.headers["RateLimit"] == f'"generations";r=0;t={answer.headers["Retry-After"]}', "one comes at once"
    quick = make("zoe", per_minute=30)
    *_, answer = (quick.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": tiny}) for _ in range(4))
    assert answer.status_code == 429
    assert int(re.findall("t=([0-9]+)", answer.headers["RateLimit"])[0]) > int(answer.headers["Retry-After"])
    many = make("zoe", per_minute=10)
    first, second = (
        many.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": tiny, "num_generations": 4})
        for _ in range(2)
    )
    assert (first.status_code, second.status_code) == (200, 429)
    assert 22 <= int(second.headers["Retry-After"]) <= 24, "each of four takes six seconds"
    busy = make("zoe", per_minute=600)
    outcomes = [_refused(busy, {"input_image": tiny})[0] for _ in range(20)]
    assert outcomes == [200] * 20, "a tenth of a minute's may come at once"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": "PICTURE"}),
        ("/v2/quick/run", {"input": {"prompt": "x", "image": "PICTURE"}}),
        ("/v1/models/darkroom/quick/predictions", {"input": {"prompt": "x", "input_image": "PICTURE"}}),
        ("/fal-ai/quick", {"prompt": "x", "image_url": "PICTURE"}),
        ("/v1/images/edits", {"model": "quick", "prompt": "x", "images": [{"image_url": "PICTURE"}]}),
    ],
)
def test_every_answer_to_a_key_with_a_rate_says_how_it_stands(make: Make, tiny: str, path: str, body: Any) -> None:
    busy = make("zoe", per_minute=600)
    sent = json.loads(json.dumps(body).replace("PICTURE", tiny))
    stands = []
    for _ in range(3):
        answer = busy.post(path, sent)
        assert answer.status_code in (200, 201), answer.text
        assert answer.headers["RateLimit-Policy"] == '"generations";q=600;w=60'
        left, full_s = re.fullmatch('"generations";r=([0-9]+);t=([0-9]+)', answer.headers["RateLimit"]).groups()  # type: ignore[union-attr]
        stands.append((int(left), int(full_s)))
    # Sixty may come at once; a tenth of a second later there is room for another.
    assert stands[0] == (59, 1)
    assert all(57 <= left <= 59 for left, _ in stands)


def test_a_key_sends_as_many_bytes_in_a_minute_as_it_may(make: Make, tiny: str) -> None:
    noise = Image.frombytes("RGB", (500, 500), random.Random(1).randbytes(750_000))
    sent = {"input_image": data_uri(encoded(noise, "PNG"))}
    bounded = make("zoe", mb_per_minute=1)
    assert _refused(bounded, sent) == (200, "")
    answer = bounded.post("/api/ai/queue", {"model": "quick", "prompt": "x", **sent})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_requests")
    assert 25 <= int(answer.headers["Retry-After"]) <= 35, "three quarters of a megabyte are there twice in 31 seconds"
    assert _refused(bounded, {"input_image": tiny}) == (200, ""), "small ones go on"
    larger = Image.frombytes("RGB", (700, 700), random.Random(1).randbytes(1_470_000))
    assert _refused(bounded, {"input_image": data_uri(encoded(larger, "PNG"))})[0] == 413, "never fits"


def test_a_keys_budget_bounds_what_its_tenant_may_spend_with_it(make: Make, tiny: str) -> None:
    broke, other = make("zara", budget_usd=0), make("zara")
    assert _refused(broke, {"input_image": tiny, "model": "priced"}) == (402, "budget_exceeded")
    assert _refused(other, {"input_image": tiny, "model": "priced"}) == (200, "")
    assert [one.get("/api/ai/usage").json()["budget_usd"] for one in (broke, other)] == [0, None]


def test_a_revoked_key_stops_within_a_second(operator: Tenant, make: Make) -> None:
    zoe = make("zoe")
    assert zoe.get("/api/ai/models").status_code == 200
    revoked = time.monotonic()
    assert operator.delete(f"/api/admin/keys/{_id(zoe)}").status_code == 200
    eventually(lambda: zoe.get("/api/ai/models").status_code == 401)
    assert time.monotonic() - revoked < 2
    assert operator.delete(f"/api/admin/keys/{_id(zoe)}").status_code == 404


@pytest.mark.parametrize(
    "path",
    ["/api/ai/queue/{id}?wait=30", "/v2/slower/status-sync/{id}", "/fal-ai/slower"],
    ids=["poll", "runpod", "run"],
)
def test_a_request_that_waits_tells_a_revoked_key_nothing(operator: Tenant, make: Make, tiny: str, path: str) -> None:
    zoe, other = make("zoe"), make("zoe")
    body = {"model": "slower", "prompt": "x", "input_image": tiny, "num_inference_steps": 40}
    id_ = zoe.post("/api/ai/queue", body).json()["generations"][0]["generation_id"]
    with ThreadPoolExecutor(1) as threads:
        if "{id}" in path:
            waiting = threads.submit(zoe.get, path.replace("{id}", id_))
        else:
            waiting = threads.submit(zoe.post, "/run" + path, {"prompt": "x", "image_url": tiny})
        eventually(lambda: other.get("/api/ai/queue").json()["count"] >= (1 if "{id}" in path else 2))
        assert operator.delete(f"/api/admin/keys/{_id(zoe)}").status_code == 200
        eventually(lambda: zoe.get("/api/ai/models").status_code == 401)
        assert not waiting.done()
        for one in other.get("/api/ai/queue").json()["generations"]:
            other.delete(f"/api/ai/queue/{one['generation_id']}")
        assert waiting.result(30).status_code == 401, waiting.result().text


def test_an_address_to_upload_to_ends_with_its_key(operator: Tenant, make: Make) -> None:
    zoe, kept = make("zoe"), make("zoe")
    slots = [one.post("/storage/upload/initiate", {"content_type": "image/png"}).json() for one in (zoe, kept)]
    assert operator.delete(f"/api/admin/keys/{_id(zoe)}").status_code == 200
    eventually(lambda: zoe.get("/api/ai/models").status_code == 401)
    picture = encoded(Image.new("RGB", (8, 8)), "PNG")
    assert [requests.put(slot["upload_url"], picture, timeout=10).status_code for slot in slots] == [401, 200]


def test_a_key_that_expires_is_unknown_from_then_on(make: Make) -> None:
    zoe = make("zoe", expires_in_s=1.5)
    assert zoe.get("/api/ai/models").status_code == 200
    eventually(lambda: zoe.get("/api/ai/models").status_code == 401, within_s=10)


def test_rotation_leaves_both_keys_valid_for_a_while(operator: Tenant, make: Make) -> None:
    old = make("zoe", scopes=["read"], label="site")
    answer = operator.post(f"/api/admin/keys/{_id(old)}/rotate", {"overlap_s": 3}).json()
    new = Tenant(old.url, "zoe", answer["key"])
    assert (answer["label"], answer["scopes"], answer["tenant"]) == ("site", ["read"], "zoe")
    assert [one.get("/api/ai/models").status_code for one in (old, new)] == [200, 200]
    eventually(lambda: old.get("/api/ai/models").status_code == 401, within_s=15)
    assert new.get("/api/ai/models").status_code == 200
    assert operator.post("/api/admin/keys/nobody/rotate", {}).status_code == 404
    operator.delete(f"/api/admin/keys/{answer['id']}")


def test_what_was_done_is_told_with_who_did_it(operator: Tenant, make: Make) -> None:
    zoe = make("zoe")
    operator.delete(f"/api/admin/keys/{_id(zoe)}")
    told = [one for one in operator.get("/api/admin/audit").json()["entries"] if one["key_id"] == _id(zoe)]
    assert [(one["action"], one["by"], one["tenant"]) for one in told] == [
        ("revoked", f"key {_id(operator)}", "zoe"),
        ("issued", f"key {_id(operator)}", "zoe"),
    ]


def test_the_command_line_does_the_same(stack: embedded.Stack) -> None:
    made = darkroom_admin(stack, "keys", "create", "zeno", "--models", "quick, slow", "--expires-in-days", "1")
    zeno = Tenant(stack.url, "zeno", made.stdout.strip())
    assert zeno.get("/api/ai/models").status_code == 200
    assert "models=quick,slow" in darkroom_admin(stack, "keys", "list", "zeno").stdout
    rotated = darkroom_admin(stack, "keys", "rotate", _id(zeno), "--overlap-hours", "0").stdout.strip()
    eventually(lambda: zeno.get("/api/ai/models").status_code == 401)
    assert "revoked" in darkroom_admin(stack, "keys", "revoke", access.id_of(rotated) or "").stdout
    assert darkroom_admin(stack, "keys", "list", "zeno").stdout == ""
    assert f"issued   {_id(zeno)}  zeno  by darkroom-admin" in darkroom_admin(stack, "audit").stdout
    for wrong, said in (
        (("create", "a/b"), "tenant: "),
        (("create", "z", "--scopes", "x"), "scopes: "),
        (("create", "z", "--budget-usd", "inf"), "budget_usd: "),
        (("revoke", "x"), "no such"),
    ):
        failed = darkroom_admin(stack, "keys", *wrong)
        assert failed.returncode == 1
        assert said in failed.stderr
    for hours in ("-1", "1e8", "inf", "nan"):
        failed = darkroom_admin(stack, "keys", "rotate", "x", "--overlap-hours", hours)
        assert (failed.returncode, f"must be from 0 to 720 hours; got {hours}" in failed.stderr) == (2, True)
    noted = darkroom_admin(stack, "pause", "tenant", "nobody")
    assert (noted.returncode, "note: no key was made for tenant nobody" in noted.stderr) == (0, True)
    darkroom_admin(stack, "resume", "tenant", "nobody")


def _asked(caller: Tenant, method: str, path: str) -> int:
    url, body = caller.url + re.sub(r"\{[^}]*\}", "quick", path), None if method == "GET" else {}
    # A stream's answer begins and does not end.
    with requests.request(method, url, headers=caller.headers, json=body, timeout=30, stream=True) as answer:
        return answer.status_code


def test_every_route_asks_for_a_key_that_may(operator: Tenant, make: Make) -> None:
    revoked, expired = make("zoe"), make("zoe", expires_in_s=0.001)
    reader, submitter = make("zoe", scopes=["read"]), make("zoe", scopes=["submit"])
    operator.delete(f"/api/admin/keys/{_id(revoked)}")
    strangers = [Tenant(operator.url, "nobody", key) for key in ("", "wrong-key-of-nobody")] + [revoked, expired]
    open_to_all = set()
    paths = requests.get(f"{operator.url}/openapi.json", timeout=30).json()["paths"]
    for method, path in ((method.upper(), path) for path, methods in paths.items() for method in methods):
        if {_asked(stranger, method, path) for stranger in strangers} <= {401, 403}:
            without = submitter if method == "GET" else reader
            # No key signs in as a page: a link does.
            refused = 401 if path == "/api/ai/tokens/sign-in" else 403
            assert _asked(without, method, path) == refused, f"{method} {path}"
        else:
            open_to_all.add(f"{method} {path}")
    assert open_to_all == PUBLIC


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        (("parked",), {"REDIS_URL": "nonsense"}, "REDIS_URL"),
        (("parked",), {"DARKROOM_DATA_DIR": "{spoiled}"}, "stack.json"),
        (("certificate", "{file}"), {}, "no folder"),
        (("keys", "create", "a/b"), {}, "tenant"),
    ],
)
def test_what_an_operator_gets_wrong_is_a_sentence(
    stack: embedded.Stack, tmp_path: Path, arguments: tuple[str, ...], changes: dict[str, str], said: str
) -> None:
    places = {"{file}": str(tmp_path / "file"), "{spoiled}": str(tmp_path)}
    (tmp_path / "file").write_text("x")
    (tmp_path / "stack.json").write_text("{")
    environment = {name: places.get(value, value) for name, value in changes.items()}
    done = darkroom_admin(stack, *(places.get(one, one) for one in arguments), **environment)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_keys_priorities_are_those_of_what_it_submits(make: Make, stack: embedded.Stack, tiny: str) -> None:
    modest = make("zoe", priorities=["low"])
    with contextlib.closing(connections.connect(stack.store)) as connection:
        for wanted in ({}, {"priority": "normal"}, {"priority": "low"}):
            id_ = modest.enqueue(tiny, **wanted)
            assert connection.hget(keys.GENERATION + id_, "priority") == "9"
    body = {"model": "quick", "prompt": "x", "input_image": tiny, "priority": "high"}
    assert modest.post("/api/ai/queue", body).status_code == 403
