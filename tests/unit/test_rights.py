"""What a key's rights make of a submission's priority; the rest is in the service's tests."""

from typing import Any, get_args

import pytest

from api.service import rights
from storage.contracts import access, errors, submissions
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
