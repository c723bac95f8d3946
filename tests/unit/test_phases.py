"""The phases of a generation on a worker, without its threads."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from storage.contracts import edits, errors, generations
from storage.contracts.geometry import Geometry, Size
from storage.ledger import claims
from storage.settings import StoreSettings
from workers import finishing, preparing, running
from workers.claiming import Claiming
from workers.conveyor import Phases
from workers.filters import Filters, WordFilter
from workers.leases import Lease
from workers.pipelines.base import Facts, Job
from workers.retrying import Retrying

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
CLAIM = generations.Claim(id="g", tenant="t", token=1, attempt=2, execution_limit_s=60, edit=EDIT, queue="q")


class Stores:
    """An object store and a ledger that fail as often as they are told, then work."""

    def __init__(self, *, puts: int = 0, runs: int = 0) -> None:
        self.failing = {"put": puts, "run": runs}
        self.calls: list[Any] = []
        self.answer: bool | None = True

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
        return self.answer

    def get(self, key: str) -> bytes:
        raise AssertionError(key)

    def delete_prefix(self, prefix: str) -> int:
        self.calls.append(f"delete {prefix}")
        return 1


def _phases(
    stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    *,
    pipeline: Any = None,
    relieve: Callable[[str], bool] = lambda model: False,
    words: Sequence[str] = (),
    queues: Sequence[str] = ("q",),
) -> Phases:
    monkeypatch.setattr(finishing, "FIRST_PAUSE_S", 0.001)
    claimant, known = claims.Claimant(worker="w"), StoreSettings().read_catalog()
    filters = Filters(words=WordFilter(words), images=None)
    keeper: Any = SimpleNamespace(lease_ms=1000, hold=Lease)
    no_decoder: Any = None
    return Phases(
        claiming=Claiming(claimant=claimant, queues=queues, ledger=stores, keeper=keeper),
        preparing=preparing.Preparing(
            known=known, objects=stores, filters=filters, fetch=lambda _, field: b"", decoder=no_decoder
        ),
        running=running.Running(filters=filters, pipeline=lambda model, on_loaded: pipeline, relieve=relieve),
        finishing=finishing.Finishing(
            claimant=claimant, known=known, ledger=stores, objects=stores, filters=filters, deliver=lambda *_: True
        ),
        retrying=Retrying(claimant=claimant, ledger=stores, max_attempts=3, rest_s=10),
    )


def _prepared(claim: generations.Claim = CLAIM) -> preparing.Prepared:
    job = Job(prompt="x", references=(), width=8, height=8, steps=4, guidance=1, seed=1)
    size = Size(width=8, height=8)
    geometry = Geometry(references=(), render=size, output=size, note="")
    return preparing.Prepared(lease=Lease(claim), job=job, geometry=geometry)


class Backlog(Stores):
    """A ledger with work for these queues, without end."""

    def __init__(self, busy: Collection[str]) -> None:
        super().__init__()
        self._busy = busy

    def run(self, call: Any) -> Any:
        queue = next(one for one in call.arguments if one in self._busy)
        return dataclasses.replace(CLAIM, queue=queue)


def test_queues_that_are_always_full_are_served_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    phases = _phases(Backlog(("b", "c")), monkeypatch, queues=["a", "b", "c", "d", "e"])
    taken = (phases.claiming.claim() for _ in range(6))
    assert [lease.claim.queue for lease in taken if lease] == ["b", "c"] * 3


class Writer:
    """A pipeline that writes prompts anew, and draws grey."""

    encodes = True
    facts = Facts(pipeline="p", dtype="d", plan="here", profile="exact", device="cpu", libraries={})

    def __init__(self, written: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.written = written
        self.meanwhile = meanwhile
        self.drawn: list[str] = []

    def upsample(self, job: Job, temperature: float, on_token: Callable[[], None]) -> str:
        self.meanwhile()
        on_token()
        return f"{self.written} at {temperature}"

    def edit(self, job: Job, on_step: Callable[[int], None], on_preview: object = None) -> Image.Image:
        self.drawn.append(job.prompt)
        return Image.new("RGB", (8, 8))


def _upsampled(**changes: Any) -> generations.Claim:
    edit = EDIT.model_copy(update={"upsample_temperature": 0.3, **changes})
    return dataclasses.replace(CLAIM, edit=edit)


def test_a_prompt_that_is_to_be_written_anew_is_what_is_drawn_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    writer, stores = Writer("a fox"), Stores()
    phases = _phases(stores, monkeypatch, pipeline=writer)
    steps: list[int] = []
    edited = phases.running.edit(_prepared(_upsampled()), steps.append)
    assert writer.drawn == ["a fox at 0.3"]
    assert steps == [], "a word is no step"
    stored = phases.finishing.store(edited)
    assert stored.result.upsampled_prompt == "a fox at 0.3"
    assert stored.sample.upsampled
    assert stored.result.receipt is not None
    assert stored.result.receipt.upsample_temperature == 0.3
    plain = phases.running.edit(_prepared(), steps.append)
    assert (writer.drawn[-1], plain.upsampled_prompt) == ("x", None)


@pytest.mark.parametrize(
    ("asked", "filtered", "has_filter", "shown"),
    [(True, True, False, True), (True, True, True, False), (True, False, True, True), (False, False, False, False)],
)
def test_no_picture_is_shown_that_a_filter_has_yet_to_judge(
    monkeypatch: pytest.MonkeyPatch, asked: bool, filtered: bool, has_filter: bool, shown: bool
) -> None:
    writer, previews = Writer("a fox"), []
    images: Any = SimpleNamespace(judge=None) if has_filter else None
    run = running.Running(
        filters=Filters(words=WordFilter([]), images=images),
        pipeline=lambda model, on_loaded: writer,  # type: ignore[arg-type, return-value]
    )
    monkeypatch.setattr(
        writer, "edit", lambda job, on_step, on_preview: previews.append(on_preview) or Image.new("RGB", (8, 8))
    )
    claim = dataclasses.replace(CLAIM, edit=EDIT.model_copy(update={"previews": asked, "filtered": filtered}))
    run.edit(_prepared(claim), lambda step: None)
    assert [one is not None for one in previews] == [shown]


def test_a_prompt_that_stays_as_it_is_is_not_told_as_another(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer("a fox")
    monkeypatch.setattr(writer, "upsample", lambda job, temperature, on_token: job.prompt)
    edited = _phases(Stores(), monkeypatch, pipeline=writer).running.edit(_prepared(_upsampled()), lambda step: None)
    assert (writer.drawn, edited.upsampled_prompt) == (["x"], None)


def test_a_prompt_that_is_no_longer_wanted_is_not_written_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = _prepared(_upsampled())
    writer = Writer("a fox", prepared.lease.stop)
    with pytest.raises(errors.CancelledError):
        _phases(Stores(), monkeypatch, pipeline=writer).running.edit(prepared, lambda step: None)
    assert writer.drawn == []


def test_words_that_the_model_comes_up_with_are_filtered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer("a forbidden fox")
    phases = _phases(Stores(), monkeypatch, pipeline=writer, words=["forbidden"])
    with pytest.raises(errors.ContentFilteredError):
        phases.running.edit(_prepared(_upsampled()), lambda step: None)
    assert writer.drawn == []
    phases.running.edit(_prepared(_upsampled(filtered=False)), lambda step: None)
    assert len(writer.drawn) == 1


def _edited(claim: generations.Claim = CLAIM) -> running.Edited:
    prepared = _prepared(claim)
    facts = Facts(pipeline="p", dtype="d", plan="here", profile="exact", device="cpu", libraries={})
    return running.Edited(prepared=prepared, picture=Image.new("RGB", (8, 8)), execution_ms=1, facts=facts)


def test_an_upload_and_a_publication_are_tried_until_they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = Stores(puts=4, runs=4)
    phases = _phases(stores, monkeypatch)
    assert phases.finishing.publish(phases.finishing.store(_edited()))
    assert [getattr(call, "script", call) for call in stores.calls] == ["put", "finish"]


@pytest.mark.parametrize("answer", [False, None])
def test_a_result_is_deleted_where_its_claim_was_lost_and_not_where_the_record_is_gone(
    monkeypatch: pytest.MonkeyPatch, answer: bool | None
) -> None:
    stores = Stores()
    phases = _phases(stores, monkeypatch)
    stored = phases.finishing.store(_edited())
    stores.answer = answer
    assert not phases.finishing.publish(stored)
    assert any(str(call).startswith("delete") for call in stores.calls) is (answer is False)


@pytest.mark.parametrize("is_wanted", [True, False])
def test_only_what_is_still_wanted_goes_into_a_callers_bucket(monkeypatch: pytest.MonkeyPatch, is_wanted: bool) -> None:
    stores, delivered = Stores(), []
    phases = _phases(stores, monkeypatch)
    monkeypatch.setattr(phases.finishing, "_deliver", lambda tenant, url, body, kind: delivered.append(url) or True)
    deliver = edits.Delivery(put_url="https://bucket.example/1", get_url="https://bucket.example/1", destination="b")
    edited = _edited(dataclasses.replace(CLAIM, edit=EDIT.model_copy(update={"deliver": deliver})))
    stored = phases.finishing.store(edited)
    if not is_wanted:
        stored.lease.stop()
        stores.answer = False
    assert phases.finishing.publish(stored) is is_wanted
    assert len(delivered) == is_wanted
    assert any(str(call).startswith("delete") for call in stores.calls) is not is_wanted


def test_patience_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finishing, "PATIENCE_S", 0.05)
    with pytest.raises(errors.ObjectsUnavailableError):
        _phases(Stores(puts=10**6), monkeypatch).finishing.store(_edited())


def test_patience_ends_when_the_work_is_no_longer_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    stores, edited = Stores(puts=10**6), _edited()
    phases = _phases(stores, monkeypatch)
    monkeypatch.setattr(finishing.time, "sleep", lambda _: edited.prepared.lease.stop())
    with pytest.raises(errors.CancelledError):
        phases.finishing.store(edited)


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
    _phases(stores, monkeypatch).retrying.give_up(Lease(CLAIM), error)
    rest_ms = stores.calls[0].arguments[4]
    # The second attempt failed: twice the first rest of ten seconds, halved at most by chance.
    assert 10_000 <= rest_ms <= 20_000 if rests else rest_ms == -1


class Tight:
    """A pipeline that has memory for an edit only after it was relieved so often."""

    encodes = True
    facts = Facts(pipeline="p", dtype="d", plan="here", profile="exact", device="cpu", libraries={})

    def __init__(self, reliefs: int, available: int) -> None:
        self.missing, self.available, self.tried = reliefs, available, 0

    def relieve(self, model: str) -> bool:
        self.available -= 1
        self.missing -= 1
        return self.available >= 0

    def edit(self, job: Job, on_step: Callable[[int], None], on_preview: object = None) -> Image.Image:
        self.tried += 1
        on_step(1)
        if self.missing > 0:
            raise errors.OutOfMemoryError("full")
        return Image.new("RGB", (8, 8))


def test_an_edit_that_runs_out_of_memory_is_tried_at_once_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    tight = Tight(reliefs=2, available=5)
    prepared = _prepared()
    edited = _phases(Stores(), monkeypatch, pipeline=tight, relieve=tight.relieve).running.edit(
        prepared, lambda step: None
    )
    assert (tight.tried, edited.picture.size) == (3, (8, 8))
    assert prepared.lease.phase is generations.Phase.FINISHING


def test_an_edit_that_no_plan_has_memory_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tight = Tight(reliefs=9, available=2)
    with pytest.raises(errors.OutOfMemoryError):
        _phases(Stores(), monkeypatch, pipeline=tight, relieve=tight.relieve).running.edit(
            _prepared(), lambda step: None
        )
    assert tight.tried == 3


def test_a_cancelled_edit_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tight, prepared = Tight(reliefs=9, available=9), _prepared()

    def relieve(model: str) -> bool:
        prepared.lease.stop()
        return True

    with pytest.raises(errors.CancelledError):
        _phases(Stores(), monkeypatch, pipeline=tight, relieve=relieve).running.edit(prepared, lambda step: None)
    assert tight.tried == 1


def test_a_fault_of_the_gpu_counts_as_a_loss_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = Stores()
    phases = _phases(stores, monkeypatch)
    phases.retrying.give_up(Lease(CLAIM), errors.GpuFaultError("illegal memory access"))
    phases.retrying.give_up(Lease(CLAIM), errors.OutOfMemoryError("full"))
    assert [call.arguments[-1] for call in stores.calls] == [2, ""]


def test_a_record_that_cannot_be_read_is_handed_back_and_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Stores):
        def run(self, call: Any) -> Any:
            self.calls.append(call)
            if call.script == "release":
                return "queued"
            return claims.Unreadable(id="g", token=3, queue="q") if len(self.calls) == 1 else CLAIM

    stores = Odd()
    lease = _phases(stores, monkeypatch).claiming.claim()
    assert lease is not None
    assert lease.claim is CLAIM
    assert [(call.script, call.arguments[:2]) for call in stores.calls[1:2]] == [("release", ("g", 3))]


@pytest.mark.parametrize("error", [errors.ModelUnavailableError("gone"), errors.GpuFaultError("illegal memory access")])
def test_a_model_that_cannot_be_loaded_ahead_is_met_again_and_a_fault_of_the_gpu_is_not(
    monkeypatch: pytest.MonkeyPatch, error: errors.DarkroomError
) -> None:
    def pipeline(model: str, on_loaded: object) -> None:
        raise error

    phases = _phases(Stores(), monkeypatch)
    monkeypatch.setattr(phases.running, "_pipeline", pipeline)
    expected = (
        pytest.raises(errors.GpuFaultError) if isinstance(error, errors.GpuFaultError) else contextlib.nullcontext()
    )
    with expected:
        phases.running.warm(Lease(CLAIM))


def test_what_an_edit_took_is_noted_beside_what_was_planned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tight = Tight(reliefs=0, available=0)
    tight.facts = dataclasses.replace(  # type: ignore[misc]
        Tight.facts, phases_gb={"encode": 10.2, "denoise": 20.0}, planned_gb={"encode": 10.0, "denoise": 15.0}
    )
    phases = _phases(Stores(), monkeypatch, pipeline=tight)
    stored = phases.finishing.store(phases.running.edit(_prepared(), lambda step: None))
    assert stored.sample.phases_gb == {"encode": 10.2, "denoise": 20.0}
    assert stored.sample.planned_gb == {"encode": 10.0, "denoise": 15.0}
    assert stored.sample.peak_gb == 20.0
    assert [record.getMessage() for record in caplog.records if "planned" in record.getMessage()] == [
        "denoise took 20.00 GB and 15.00 were planned (here)"
    ]
