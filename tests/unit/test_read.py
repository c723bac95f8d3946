"""What can still be downloaded is said in one place, and every dialect says the same."""

import dataclasses
import time
from typing import Any

import pytest

from api.dialects import bfl
from api.dialects.fal import answers as fal_answers
from api.dialects.openai import answers as openai_answers
from api.dialects.oxen import answers as oxen_answers
from api.dialects.replicate import answers as replicate_answers
from api.dialects.runpod import answers as runpod_answers
from api.service import checks
from api.service.accepted import Accepted
from api.service.read import Reader, ResultView
from api.service.signing import Signatures
from storage.contracts import catalog, errors, generations, results
from tests.stores.conftest import a_submission

DAY_MS = 24 * 3600 * 1000
RESULT = results.Result(
    key="results/alice/1/1.png", content_type="image/png", width=8, height=8, size_bytes=9, fit="", execution_ms=5
)
NOW_MS = int(time.time() * 1000)


class Objects:
    def signed_url(self, key: str, expires_at: object) -> str:
        return f"http://store/{key}"

    async def get(self, key: str) -> bytes:
        return b"pixels"


def _view(*, days_ago: float = 0, **changes: Any) -> ResultView:
    generation = generations.Generation(
        id="1", tenant="alice", status=generations.Status.SUCCEEDED, submission=a_submission(),
        times=generations.Timeline(created_ms=NOW_MS, started_ms=NOW_MS, completed_ms=NOW_MS - int(days_ago * DAY_MS)),
        attempts=1, step=8, result=RESULT, error_code=None, error_message=None, error_details=None, position=None,
    )  # fmt: skip
    generation = dataclasses.replace(generation, **changes)
    return ResultView(generation=generation, model=None, objects=Objects(), signatures=Signatures(b"s"))  # type: ignore[arg-type]


async def _links(view: ResultView) -> dict[str, object]:
    return {
        "oxen": oxen_answers.generation(view, "http://here")["result_url"],
        "runpod": (await runpod_answers.job(view))["output"]["image_url"],
        "replicate": replicate_answers.prediction([view], "http://here")["output"],
        "bfl": (bfl._task(view, "http://here")["result"] or {}).get("sample"),
        "fal": (await fal_answers.payload([view], "http://here"))["images"][0]["url"],
        "openai": (await openai_answers.datum(view, "url", "http://here"))["url"],
    }


async def test_a_result_that_is_kept_has_a_link_in_every_dialect() -> None:
    links = await _links(_view(days_ago=6.9))
    assert all(str(link).startswith("http://") for link in links.values()), links


async def test_a_result_that_is_gone_has_none_in_any() -> None:
    links = await _links(_view(days_ago=7.1))
    assert set(links.values()) == {None}, links


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"status": generations.Status.CANCELLED, "result": None}, "cancelled"),
        ({"status": generations.Status.FAILED, "result": None, "error_code": "timed_out"}, "timed_out"),
        ({"status": generations.Status.FAILED, "result": None, "error_code": "of a newer release"}, "internal"),
        ({"status": generations.Status.PROCESSING, "result": None}, None),
        ({}, None),
    ],
)
def test_why_there_is_no_result(changes: dict[str, Any], code: str | None) -> None:
    view = _view(**changes)
    failure = view.failure(checks.NATIVE)
    assert (failure.code if failure else None) == code
    if changes:
        with pytest.raises(errors.DarkroomError) as caught:
            view.made()
        assert caught.value.code == (code or "internal")


def test_a_link_of_our_own_ends_when_the_result_does() -> None:
    assert _view(days_ago=7.1).own_url("http://here") is None
    url = _view().own_url("http://here")
    assert url is not None
    assert Signatures(b"s").own_key(url, "alice") == RESULT.key


FAL = checks.Names(image="image_url", mask="mask_url")


def test_a_failure_calls_fields_as_the_dialect_does() -> None:
    told = "mask_image must have the shape of input_image, 96x64; got 32x64"
    view = _view(
        status=generations.Status.FAILED, result=None, error_code="invalid_input", error_message=told,
        error_details={"field": "mask_image"},
    )  # fmt: skip
    failure = view.failure(FAL)
    assert failure is not None
    assert failure.message == "mask_url must have the shape of image_url, 96x64; got 32x64"
    assert failure.field == "mask_url"
    native = view.failure(checks.NATIVE)
    assert native is not None
    assert (native.message, native.field) == (told, "mask_image")


class Ledger:
    """Accepted, and does not answer since."""

    async def run(self, call: object) -> object:
        raise errors.StoreUnavailableError("gone")


async def test_what_was_accepted_is_told_when_it_cannot_be_read() -> None:
    submission = a_submission()
    seeded = submission.model_copy(update={"edit": submission.edit.model_copy(update={"seed": 2**32 - 1})})
    accepted = Accepted(tenant="alice", submission=seeded, ids=("1", "2"), cursor="0-0", replayed=False, is_served=True)
    known = catalog.Catalog(models={}, gpu_types={})
    reader = Reader(ledger=Ledger(), archive=None, known=known, objects=Objects(), signatures=Signatures(b"s"))  # type: ignore[arg-type]
    views = await reader.accepted(accepted)
    answer = replicate_answers.prediction(views, "http://here")
    assert (answer["id"], answer["status"], answer["output"], answer["seed"]) == ("1", "starting", None, 2**32 - 1)
    assert [view.generation.edit.seed for view in views] == [2**32 - 1, 0]
