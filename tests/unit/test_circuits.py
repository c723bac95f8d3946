"""A receiver that does not answer is given a rest, then tried by one call."""

from api.webhooks import circuits
from api.webhooks.circuits import FAILURES, LONGEST_REST_S, REST_S, Circuits, destination_of

SLOW = destination_of("alice", "https://slow.example/hook")


def _failed(known: Circuits, times: int, *, now: float = 0.0, answered: bool = False) -> None:
    for _ in range(times):
        known.begin(SLOW)
        known.end(SLOW, answered=answered, now=now)


def test_it_rests_after_failures_in_a_row_alone() -> None:
    known = Circuits()
    _failed(known, FAILURES - 1)
    _failed(known, 1, answered=True)
    _failed(known, FAILURES - 1)
    assert known.rest_s(SLOW, 0.0) == 0
    _failed(known, 1)
    assert known.rest_s(SLOW, 0.0) == REST_S
    assert known.rest_s(SLOW, REST_S - 1) == 1


def test_after_the_rest_one_call_tries_and_what_it_finds_decides() -> None:
    known = Circuits()
    _failed(known, FAILURES)
    assert known.rest_s(SLOW, REST_S) == 0
    known.begin(SLOW)
    assert known.rest_s(SLOW, REST_S) > 0, "one is enough"
    known.end(SLOW, answered=False, now=REST_S)
    assert known.rest_s(SLOW, REST_S) == 2 * REST_S
    _failed(known, 20, now=1000)
    assert known.rest_s(SLOW, 1000) == LONGEST_REST_S
    _failed(known, 1, answered=True)
    assert known.rest_s(SLOW, 1000) == 0


def test_other_hosts_and_other_tenants_are_not_held_up() -> None:
    known = Circuits()
    _failed(known, FAILURES)
    assert known.rest_s(destination_of("alice", "https://SLOW.example/other"), 0.0) > 0
    assert known.rest_s(destination_of("alice", "https://quick.example/hook"), 0.0) == 0
    assert known.rest_s(destination_of("bob", "https://slow.example/hook"), 0.0) == 0


def test_what_is_known_is_bounded() -> None:
    known = Circuits()
    for n in range(circuits.REMEMBERED + 10):
        known.begin((f"tenant-{n}", "host"))
    assert len(known._states) == circuits.REMEMBERED
    known.end(("tenant-0", "host"), answered=False, now=0.0)
