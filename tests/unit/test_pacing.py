"""Requests of a tenant are counted evenly, a tenth of a minute's worth at once, and nobody's count for another."""

import pytest

from api.http import errors as http_errors
from api.service import pacing
from api.service.pacing import RequestPace
from storage.contracts import errors


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(pace: RequestPace, tenant: str, most: int = 10_000) -> int:
    """How many in a row are taken."""
    for number in range(most):
        try:
            pace.check(tenant)
        except errors.TooManyRequestsError:
            return number
    return most


def test_a_tenth_comes_at_once_and_then_as_many_as_time_allows() -> None:
    clock = Clock()
    pace = RequestPace(600, clock)
    assert taken(pace, "alice") == 60
    assert taken(pace, "bob") == 60, "another's are another's"
    clock.now += 1
    assert taken(pace, "alice") == 10
    clock.now += 3600
    assert taken(pace, "alice") == 60, "what was not used is not saved up"


def test_a_refusal_says_when_to_come_again() -> None:
    clock = Clock()
    pace = RequestPace(60, clock)
    taken(pace, "alice")
    with pytest.raises(errors.TooManyRequestsError) as caught:
        pace.check("alice")
    assert caught.value.retry_after == pytest.approx(1)
    assert http_errors.headers(caught.value) == {
        "Retry-After": "1", "RateLimit-Policy": '"requests";q=60;w=60', "RateLimit": '"requests";r=0;t=6',
    }  # fmt: skip
    clock.now += caught.value.retry_after
    pace.check("alice")


def test_one_a_minute_is_one() -> None:
    clock = Clock()
    pace = RequestPace(1, clock)
    assert taken(pace, "alice") == 1
    clock.now += 60
    assert taken(pace, "alice") == 1


def test_without_a_rate_nothing_is_counted() -> None:
    assert taken(RequestPace(None), "alice") == 10_000


def test_few_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "REMEMBERED", 3)
    pace = RequestPace(600)
    for number in range(10):
        pace.check(str(number))
    assert list(pace._due) == ["7", "8", "9"]
