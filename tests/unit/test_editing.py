"""Finishing is patient: the GPU's work is done, and a store's hiccup should not cost it."""

from typing import Any

import pytest
from PIL import Image

from storage.contracts import edits, errors, generations
from storage.contracts.geometry import Geometry, Size
from storage.ledger import calls
from storage.settings import StoreSettings
from workers import editing
from workers.filters import Filters, WordFilter
from workers.leases import Keeper, Lease
from workers.pipelines.base import Facts, Job

EDIT = edits.Edit(
    model="flux-kontext-dev",
    prompt="x",
    references=(),
    steps=4,
    guidance=1,
    seed=1,
    output_format="png",
    quality=80,
)
CLAIM = generations.Claim(id="g", tenant="t", token=1, attempt=2, execution_limit_s=60, edit=EDIT)


class Stores:
    """An object store and a ledger that fail as often as they are told, then work."""

    def __init__(self, *, puts: int = 0, runs: int = 0) -> None:
        self.failing = {"put": puts, "run": runs}
        self.calls: list[Any] = []

    def _maybe_fail(self, what: str, error: errors.DarkroomError) -> None:
        if self.failing[what] > 0:
            self.failing[what] -= 1
            raise error

    def put(self, key: str, body: bytes, content_type: str) -> None:
        self._maybe_fail("put", errors.ObjectsUnavailableError("throttled"))
        self.calls.append("put")

    def run(self, call: Any) -> Any:
        self._maybe_fail("run", errors.StoreUnavailableError("away"))
        self.calls.append(call)
        return True

    def get(self, key: str) -> bytes:
        raise AssertionError(key)

    def delete_prefix(self, prefix: str) -> int:
        self.calls.append(f"delete {prefix}")
        return 1


def _editing(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> editing.Editing:
    monkeypatch.setattr(editing, "FIRST_PAUSE_S", 0.001)
    return editing.Editing(
        claimant=calls.Claimant(worker="w"), queues=["q"], known=StoreSettings().read_catalog(), ledger=stores, objects=stores,
        fetch=lambda _, field: b"", deliver=lambda *_: True,
        filters=Filters(words=WordFilter([]), images=None), pipeline=lambda model, on_loaded: None,  # type: ignore[arg-type, return-value]
        keeper=Keeper.__new__(Keeper), max_attempts=3, rest_s=10,
    )  # fmt: skip


def _edited() -> editing.Edited:
    job = Job(prompt="x", references=(), width=8, height=8, steps=4, guidance=1, seed=1)
    size = Size(width=8, height=8)
    geometry = Geometry(references=(), render=size, output=size, note="")
    prepared = editing.Prepared(lease=Lease(CLAIM), job=job, geometry=geometry)
    facts = Facts(pipeline="p", dtype="d", placement="here", device="cpu", libraries={})
    return editing.Edited(prepared=prepared, picture=Image.new("RGB", (8, 8)), execution_ms=1, facts=facts)


def test_an_upload_and_a_publication_are_tried_until_they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = Stores(puts=4, runs=4)
    use_case = _editing(stores, monkeypatch)
    assert use_case.publish(use_case.store(_edited()))
    assert [getattr(call, "script", call) for call in stores.calls] == ["put", "finish"]


def test_patience_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "PATIENCE_S", 0.05)
    with pytest.raises(errors.ObjectsUnavailableError):
        _editing(Stores(puts=10**6), monkeypatch).store(_edited())


def test_patience_ends_when_the_work_is_no_longer_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    stores, edited = Stores(puts=10**6), _edited()
    use_case = _editing(stores, monkeypatch)
    monkeypatch.setattr(editing.time, "sleep", lambda _: edited.prepared.lease.stop())
    with pytest.raises(errors.CancelledError):
        use_case.store(edited)


@pytest.mark.parametrize(
    ("error", "rests"),
    [
        (errors.OutOfMemoryError("x"), True),
        (errors.ObjectsUnavailableError("x"), True),
        (errors.InvalidInputError("x"), False),
        (errors.InputUnreachableError("x"), False),
        (errors.TimedOutError("x"), False),
        (errors.InternalError("x"), False),
    ],
)
def test_transient_failures_rest_before_another_attempt_and_permanent_ones_have_none(
    monkeypatch: pytest.MonkeyPatch, error: errors.DarkroomError, rests: bool
) -> None:
    stores = Stores()
    _editing(stores, monkeypatch).give_up(Lease(CLAIM), error)
    rest_ms = stores.calls[0].arguments[4]
    # The second attempt failed: twice the first rest of ten seconds, halved at most by chance.
    assert 10_000 <= rest_ms <= 20_000 if rests else rest_ms == -1
