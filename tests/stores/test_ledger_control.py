"""What an operator pauses is accepted and not claimed."""

from typing import Any

import pytest

from storage.ledger import claims, control
from tests.stores.conftest import Desk

QUEUES = ["edits.quick.any", "edits.slow.any", "edits.quicker.any"]


def _claimed(desk: Desk) -> list[str]:
    """Everything that can be claimed, in its turn."""
    taken = []
    while (claim := desk.run(claims.claim(claims.Claimant(worker="w"), 60_000, QUEUES))) is not None:
        taken.append(claim.id)
    return taken


@pytest.mark.parametrize(
    ("kind", "name", "held"),
    [
        ("model", "quick", {"alice's quick", "bob's quick"}),
        ("tenant", "alice", {"alice's quick", "alice's slow"}),
        ("queue", "edits.slow.any", {"alice's slow"}),
        ("model", "other", set()),
    ],
)
def test_it_is_claimed_once_it_is_resumed(desk: Desk, kind: Any, name: str, held: set[str]) -> None:
    ids = {
        desk.accept("alice", queue="edits.quick.any"): "alice's quick",
        desk.accept("bob", queue="edits.quick.any"): "bob's quick",
        desk.accept("alice", queue="edits.slow.any"): "alice's slow",
        desk.accept("bob", queue="edits.quicker.any"): "bob's quicker",
    }
    assert desk.run(control.pause(kind, name))
    assert not desk.run(control.pause(kind, name)), "it is paused"
    assert {ids[id_] for id_ in _claimed(desk)} == set(ids.values()) - held
    assert set(desk.run(control.paused())) == {f"{kind}:{name}"}
    assert desk.run(control.resume(kind, name))
    assert not desk.run(control.resume(kind, name))
    assert {ids[id_] for id_ in _claimed(desk)} == held
    assert desk.run(control.paused()) == {}


def test_what_runs_goes_on(desk: Desk) -> None:
    desk.accept()
    claim = desk.claim()
    desk.run(control.pause("tenant", "alice"))
    assert desk.finish(claim)


def test_a_paused_tenant_keeps_its_turn(desk: Desk) -> None:
    first, other = desk.accept("alice"), desk.accept("bob")
    desk.run(control.pause("tenant", "alice"))
    assert desk.claim().id == other
    behind = desk.accept("bob")
    desk.run(control.resume("tenant", "alice"))
    assert [desk.claim().id for _ in range(2)] == [first, behind]
