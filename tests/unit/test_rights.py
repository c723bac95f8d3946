"""What a key's rights make of a submission's priority, and of one that is to run again; the rest is in the service's tests."""

from typing import Any, get_args

import pytest

from api.service import rights
from storage.contracts import access, errors, generations, submissions
from storage.settings import StoreSettings
from tests.stores.conftest import a_submission

KNOWN = StoreSettings().read_catalog()


def _applied(priority: int, *allowed: Any) -> int:
    submission = a_submission(priority=priority)
    edit = submission.edit.model_copy(update={"model": "flux-kontext-dev"})
    submission = submission.model_copy(update={"edit": edit})
    return rights.applied(submission, access.Rights(priorities=allowed), KNOWN).priority


def test_keys_and_requests_have_the_same_names_for_them() -> None:
    assert set(get_args(access.Priority)) == set(submissions.PRIORITIES)


@pytest.mark.parametrize(
    ("asked", "allowed", "given"),
    [
        ("high", (), "high"),
        ("low", (), "low"),
        ("normal", ("low",), "low"),
        ("normal", ("high", "low"), "high"),
        ("normal", ("normal", "low"), "normal"),
        ("low", ("low",), "low"),
    ],
)
def test_a_key_gives_what_it_may(asked: str, allowed: tuple[str, ...], given: str) -> None:
    assert _applied(submissions.PRIORITIES[asked], *allowed) == submissions.PRIORITIES[given]


@pytest.mark.parametrize(("asked", "allowed"), [("high", ("low",)), ("high", ("normal", "low")), ("low", ("normal",))])
def test_what_it_may_not_is_refused(asked: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(errors.ForbiddenError, match=", ".join(allowed)):
        _applied(submissions.PRIORITIES[asked], *allowed)


def _check_again(queue: str, *, filtered: bool = True, chain: tuple[str, ...] = (), **allowed: Any) -> None:
    submission = a_submission()
    edit = submission.edit.model_copy(update={"model": "flux-kontext-dev", "filtered": filtered})
    failed = generations.Generation(
        id="1", tenant="ann", status=generations.Status.FAILED, submission=submission.model_copy(update={"edit": edit}),
        times=generations.Timeline(created_ms=1), attempts=1, step=0, result=None, error_code="internal", error_message="",
        error_details=None, position=None, queue=queue, chain=chain,
    )  # fmt: skip
    rights.check_again(failed, access.Rights(**allowed), KNOWN)


def test_a_key_has_run_again_what_it_might_have_submitted() -> None:
    _check_again("edits.flux-kontext-dev.any")
    _check_again("edits.flux-kontext-dev.h100.eu", gpu_types=("l40s", "h100"))
    _check_again("edits.flux-kontext-dev.any", filtered=False, unfiltered=True)


@pytest.mark.parametrize("queue", ["edits.flux-kontext-dev.any", "edits.flux-kontext-dev.h100.eu"])
def test_what_waited_for_other_gpus_does_not_run_again_with_it(queue: str) -> None:
    with pytest.raises(errors.ForbiddenError, match="l40s"):
        _check_again(queue, gpu_types=("l40s",))


def test_nor_what_may_go_on_to_others() -> None:
    chain = ("edits.flux-kontext-dev.l40s", "edits.flux-kontext-dev.h100")
    with pytest.raises(errors.ForbiddenError, match="h100"):
        _check_again(chain[0], chain=chain, gpu_types=("l40s",))
    _check_again(chain[0], chain=chain, gpu_types=("l40s", "h100"))


def test_what_ran_without_filters_does_not_run_again_with_a_key_that_may_not_switch_them_off() -> None:
    with pytest.raises(errors.ForbiddenError, match="without filters"):
        _check_again("edits.flux-kontext-dev.any", filtered=False)
