"""What is erased is gone: from the ledger, the object store, the event log, and from what is answered to its idempotency key."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import requests

from infra import embedded
from storage import connections, keys
from storage.objects import Objects
from tests.conftest import TENANTS, Receiving, Tenant, eventually
from tests.service.conftest import Make

PROMPT = "make the secret harbour blue"


@pytest.fixture
def connection(stack: embedded.Stack) -> Iterator[redis.Redis]:
    with contextlib.closing(connections.connect(stack.store)) as connection:
        yield connection


@pytest.fixture
def dave(stack: embedded.Stack) -> Tenant:
    return Tenant(stack.url, "dave", TENANTS["dave"])


def _everything(connection: redis.Redis) -> str:
    """All that the ledger holds, as text."""
    readers: dict[str, Any] = {
        "hash": connection.hgetall,
        "string": connection.get,
        "zset": lambda name: connection.zrange(name, 0, -1),
        "list": lambda name: connection.lrange(name, 0, -1),
        "set": connection.smembers,
        "stream": lambda name: connection.xrange(name),
    }
    # What expires between being found and being read is of type `none`.
    kinds = {name: str(connection.type(name)) for name in connection.scan_iter(match=keys.PREFIX + "*")}
    return json.dumps([[name, str(readers[kind](name))] for name, kind in kinds.items() if kind in readers])


def _left(connection: redis.Redis, id_: str) -> bool:
    """Whether the ledger knows it, but for where something of it may still arrive, to be deleted."""
    left = _everything(connection)
    for kind in ("results", "records"):
        left = left.replace(f"'{kind}/dave/{id_}'", "")
    return id_ in left


def _objects(stack: embedded.Stack, tenant: str, id_: str = "") -> int:
    """How many objects lie there; they are deleted by counting them, so ask last."""
    store = Objects(stack.store)
    return sum(store.delete_prefix(f"{kind}/{tenant}/{id_}") for kind in ("inputs", "results", "files"))


def _erase(tenant: Tenant, id_: str) -> dict[str, Any]:
    answer = tenant.delete(f"/api/ai/queue/{id_}?erase=true")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert (found["status"], found["effect"], found["generation_id"]) == ("success", "erased", id_)
    return found["erased"]  # type: ignore[no-any-return]


def test_a_finished_generation_is_erased_with_its_prompt_pictures_and_events(
    dave: Tenant, tiny: str, connection: redis.Redis, stack: embedded.Stack
) -> None:
    body = {"model": "quick", "prompt": PROMPT, "input_image": tiny}
    id_ = dave.post("/api/ai/queue", body, headers={"Idempotency-Key": "harbour"}).json()["generations"][0][
        "generation_id"
    ]
    url = dave.finished(id_)["result_url"]
    assert requests.get(url, timeout=10).status_code == 200
    assert PROMPT in _everything(connection)
    erased = _erase(dave, id_)
    assert (erased["generations"], erased["objects"]) == (1, 2), "input and result"
    assert erased["events"] >= 3
    assert requests.get(url, timeout=10).status_code == 404
    assert dave.get(f"/api/ai/queue/{id_}").status_code == 404
    assert dave.delete(f"/api/ai/queue/{id_}?erase=true").status_code == 404
    eventually(lambda: not _left(connection, id_))
    left = _everything(connection)
    assert PROMPT not in left
    assert "harbour" not in left
    assert _objects(stack, "dave", id_) == 0


def test_cancelling_what_is_over_says_that_nothing_came_of_it(dave: Tenant, tiny: str) -> None:
    id_ = dave.enqueue(tiny)
    url = dave.finished(id_)["result_url"]
    assert dave.delete(f"/api/ai/queue/{id_}").json()["effect"] == "none"
    assert requests.get(url, timeout=10).status_code == 200


@pytest.mark.parametrize("is_running", [False, True])
def test_an_unfinished_generation_is_cancelled_and_erased(
    dave: Tenant, tiny: str, connection: redis.Redis, nobody_waits: None, is_running: bool
) -> None:
    ids = [dave.enqueue(tiny, model="slow", prompt=PROMPT) for _ in range(2)]
    eventually(lambda: dave.get(f"/api/ai/queue/{ids[0]}").json()["status"] == "processing")
    running, waiting = ids
    erased = _erase(dave, running if is_running else waiting)
    assert erased["generations"] == 1
    dave.delete(f"/api/ai/queue/{waiting if is_running else running}?erase=true")
    eventually(lambda: PROMPT not in _everything(connection))


def test_pictures_that_generations_share_stay_until_the_last_is_erased(dave: Tenant, tiny: str) -> None:
    answer = dave.post("/api/ai/queue", {"model": "quick", "prompt": "x", "input_image": tiny, "num_generations": 2})
    first, second = (one["generation_id"] for one in answer.json()["generations"])
    dave.finished(first)
    dave.finished(second)
    assert _erase(dave, first)["objects"] == 1, "its result"
    again = dave.post(f"/api/ai/queue/{second}/replay").json()["generations"][0]["generation_id"]
    assert dave.finished(again)["status"] == "succeeded"
    assert _erase(dave, second)["objects"] == 2, "its result and the picture of both"
    _erase(dave, again)


def test_another_tenants_generation_cannot_be_erased(dave: Tenant, alice: Tenant, tiny: str) -> None:
    id_ = alice.enqueue(tiny)
    assert dave.delete(f"/api/ai/queue/{id_}?erase=true").status_code == 404
    assert alice.finished(id_)["status"] == "succeeded"


def test_a_tenant_is_erased_whole_and_nobody_else_is(
    dave: Tenant, alice: Tenant, tiny: str, connection: redis.Redis, stack: embedded.Stack, nobody_waits: None
) -> None:
    kept = alice.enqueue(tiny, prompt="what alice keeps")
    ids = [dave.enqueue(tiny, prompt=PROMPT, model=model) for model in ("quick", "quick", "slow")]
    dave.finished(ids[0])
    assert dave.delete("/api/ai/queue").status_code == 400, "not without saying so"
    assert dave.delete("/api/ai/queue?erase=all").status_code == 400
    erased = dave.delete("/api/ai/queue?erase=everything").json()["erased"]
    assert erased["generations"] >= 3
    assert dave.get("/api/ai/queue").json()["generations"] == []
    eventually(lambda: PROMPT not in _everything(connection))
    assert not connection.exists(keys.EVENTS + "dave", keys.HISTORY + "dave")
    assert dave.get(f"/api/ai/usage?month={time.strftime('%Y-%m')}").json()["models"], "what was used is still known"
    eventually(lambda: _objects(stack, "dave") == 0)
    assert alice.finished(kept)["status"] == "succeeded"
    found = alice.get("/api/ai/queue?status=all&search=what alice keeps").json()["generations"]
    assert [one["generation_id"] for one in found] == [kept], "in Redis or archived"


def _ended_long_ago(connection: redis.Redis, id_: str, seconds: float) -> None:
    """As if its end had been so much earlier."""
    connection.zincrby(keys.ERASING, -1000 * seconds, id_)


def test_what_is_not_to_be_stored_is_erased_ten_minutes_after_its_end(
    dave: Tenant, tiny: str, connection: redis.Redis, stack: embedded.Stack
) -> None:
    body = {"model": "quick", "prompt": PROMPT, "input_image": tiny, "no_store": True}
    id_ = dave.post("/api/ai/queue", body, headers={"Idempotency-Key": "once"}).json()["generations"][0][
        "generation_id"
    ]
    done = dave.finished(id_)
    assert done["expires_at"] - done["completed_at"] == 600
    assert done["no_store"] is True
    _ended_long_ago(connection, id_, 590)
    assert requests.get(done["result_url"], timeout=10).status_code == 200
    assert dave.get(f"/api/ai/queue/{id_}").status_code == 200
    _ended_long_ago(connection, id_, 15)
    eventually(lambda: not _left(connection, id_))
    assert PROMPT not in _everything(connection)
    assert requests.get(done["result_url"], timeout=10).status_code in (403, 404)
    assert dave.get(f"/api/ai/queue/{id_}").status_code == 404
    assert _objects(stack, "dave", id_) == 0


def test_an_event_tells_the_same_expiry(dave: Tenant, tiny: str) -> None:
    id_ = dave.enqueue(tiny, no_store=True)
    done = dave.finished(id_)
    with requests.get(
        f"{dave.url}/api/events?generation_id={id_}&types=media_generation_completed",
        headers=dave.headers, stream=True, timeout=30,
    ) as answer:  # fmt: skip
        line = next(line for line in answer.iter_lines() if line.startswith(b"data:") and id_.encode() in line)
    assert json.loads(line[5:])["expires_at"] == done["expires_at"]


def test_a_key_may_say_how_long_everything_is_kept(make: Make, tiny: str, connection: redis.Redis) -> None:
    for rights, seconds in (({"retention_days": 2}, 172_800), ({"no_store": True}, 600), ({}, 604_800)):
        caller = make("zora", **rights)
        done = caller.finished(caller.enqueue(tiny))
        assert done["expires_at"] - done["completed_at"] == seconds
        assert (connection.zscore(keys.ERASING, done["generation_id"]) is None) == (not rights)
    shorter = make("zora", retention_days=2)
    done = shorter.finished(shorter.enqueue(tiny, no_store=True))
    assert done["expires_at"] - done["completed_at"] == 600, "the shortest holds"


def test_the_others_of_a_request_go_on_without_one_that_is_erased(
    dave: Tenant, tiny: str, hooks: tuple[str, Receiving]
) -> None:
    url, receiving = hooks
    with receiving() as calls:
        body = {"model": "slow", "prompt": "x", "input_image": tiny, "num_generations": 3, "webhook_url": url}
        ids = [one["generation_id"] for one in dave.post("/api/ai/queue", body).json()["generations"]]
        _erase(dave, ids[0])
        dave.delete(f"/api/ai/queue/{ids[1]}")
        dave.delete(f"/api/ai/queue/{ids[2]}")
        eventually(lambda: calls)
    told = json.loads(calls[0].body)["data"]["generations"]
    assert [one["generation_id"] for one in told] == ids[1:]
