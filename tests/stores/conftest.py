"""A ledger of the test's own, in another database of the stack's Valkey."""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
import redis
from pydantic import SecretStr

from infra import embedded
from storage import connections
from storage.contracts import edits, errors, generations, results, samples, submissions
from storage.ledger import call, claims, records
from storage.ledger.execution import RedisLedger
from storage.objects import Objects
from storage.settings import StoreSettings
from tests.conftest import check_lifetimes

T = TypeVar("T")

QUEUE = "edits.quick.any"


def limits(**changes: float) -> records.Limits:
    values: dict[str, Any] = {"max_active": 1000, "max_queued": 10_000, "queue_ttl_s": 3600, "execution_limit_s": 600}
    return records.Limits(**{**values, **changes})


def an_edit(**changes: object) -> edits.Edit:
    values: dict[str, object] = {
        "model": "quick",
        "prompt": "make it blue",
        "references": ({"kind": "remote", "url": "http://example.com/a.png"},),
        "steps": 8,
        "guidance": 2.5,
        "seed": 1,
        "output_format": "webp",
        "quality": 80,
    }
    return edits.Edit.model_validate({**values, **changes})


def a_submission(**changes: object) -> submissions.Submission:
    return submissions.Submission.model_validate({"edit": an_edit(), **changes})


A_RECEIPT = results.MadeWith(
    model="quick", weights="w", revision=None, pipeline="p", seed=1, steps=8, guidance=2.5, rendered="64x64", dtype="d",
    placement="here", gpu_type="cpu", gpu="CPU", libraries={},
)  # fmt: skip


TARGET = samples.Target(model="quick", gpu_type="cpu", region="local")
SAMPLE = samples.Sample(at_ms=1, outcome="succeeded", pixels=4096, steps=8, references=1, execute_ms=20)


@dataclass
class Desk:
    """A ledger with short ways to do what API and workers do."""

    ledger: RedisLedger
    connection: redis.Redis

    def run(self, call: call.Call[T]) -> T:
        return self.ledger.run(call)

    def receive(self, tenant: str = "alice", *, count: int = 1, **changes: object) -> records.Created:
        asked = {name: changes.pop(name) for name in tuple(changes) if name in submissions.Submission.model_fields}
        terms: dict[str, Any] = {
            "tenant": tenant,
            "ids": [str(uuid.uuid4()) for _ in range(count)],
            "queue": QUEUE,
            "limits": limits(),
            **changes,
        }
        return self.run(records.create(a_submission(**asked), **terms))

    def accept(self, tenant: str = "alice", **changes: object) -> str:
        return self.receive(tenant, **changes).ids[0]

    def claim(self, *, lease_ms: int = 60_000, worker: str = "w1") -> generations.Claim:
        claim = self.run(claims.claim(claims.Claimant(worker=worker), lease_ms, [QUEUE]))
        assert isinstance(claim, generations.Claim)
        return claim

    def now_ms(self) -> int:
        seconds, micros = self.connection.time()  # type: ignore[misc]
        return int(seconds) * 1000 + int(micros) // 1000

    def read(self, id_: str, tenant: str = "alice") -> generations.Generation:
        return self.run(records.read(id_, tenant))

    def finish(self, claim: generations.Claim) -> bool | None:
        return self.run(claims.finish(claim, a_result(claim), TARGET, SAMPLE))

    def fail(self, claim: generations.Claim, error: errors.DarkroomError, rest_s: float | None = 0) -> str:
        return self.run(claims.fail(claim, error, rest_s=rest_s, max_attempts=3))

    def event_types(self, tenant: str = "alice") -> list[str]:
        from storage import keys

        entries: list[tuple[str, dict[str, str]]] = self.connection.xrange(keys.EVENTS + tenant)  # type: ignore[assignment]
        return [fields["type"].removeprefix("media_generation_") for _, fields in entries]


def a_result(claim: generations.Claim) -> results.Result:
    return results.Result(
        key=claim.result_key,
        content_type="image/webp",
        width=64,
        height=64,
        size_bytes=9,
        fit="",
        execution_ms=5,
        receipt=A_RECEIPT,
    )


@pytest.fixture
def settings(stack: embedded.Stack) -> StoreSettings:
    url = stack.store.redis_url.get_secret_value().removesuffix("/0") + "/1"
    return stack.store.model_copy(update={"redis_url": SecretStr(url)})


@pytest.fixture
def desk(settings: StoreSettings) -> Iterator[Desk]:
    with contextlib.closing(connections.connect(settings)) as connection:
        connection.flushdb()
        yield Desk(RedisLedger(connection), connection)
        check_lifetimes(connection)
        connection.flushdb()


@pytest.fixture
def another(settings: StoreSettings) -> Iterator[Callable[[], RedisLedger]]:
    """More ledgers on connections of their own, for threads."""
    with contextlib.ExitStack() as stack:
        yield lambda: RedisLedger(stack.enter_context(contextlib.closing(connections.connect(settings))))


@pytest.fixture
def objects(settings: StoreSettings) -> Iterator[Objects]:
    with contextlib.closing(Objects(settings)) as one:
        yield one


@pytest.fixture
def tenant() -> str:
    """One whose folder in the object store is empty."""
    return f"t-{uuid.uuid4().hex[:12]}"
