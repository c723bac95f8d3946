"""A worker leaves to others what a tenant has by URL while pictures of that tenant are slow to arrive."""

from storage.contracts import generations
from storage.ledger import claims
from tests.stores.conftest import QUEUE, Desk, an_edit, limits

STORED = an_edit(references=({"kind": "stored", "key": "inputs/mallory/1/0"},))
WORKER = claims.Claimant(worker="w")


def _claimed(desk: Desk, *slow_tenants: str) -> str | None:
    claim = desk.run(claims.claim(WORKER, 60_000, [QUEUE], slow_tenants=slow_tenants))
    assert claim is None or isinstance(claim, generations.Claim)
    return claim and claim.id


def test_its_fetched_pictures_are_left_and_all_else_is_served(desk: Desk) -> None:
    fetched = desk.accept("mallory")
    masked = desk.accept(
        "mallory", edit=STORED.model_copy(update={"mask": an_edit().references[0]}), inputs_prefix="inputs/mallory/1/"
    )
    stored = desk.accept("mallory", edit=STORED)
    another = desk.accept("bob")
    assert {_claimed(desk, "mallory", "carol") for _ in range(3)} == {stored, another, None}
    assert desk.read(fetched, "mallory").attempts == 0
    assert [_claimed(desk), _claimed(desk)] == [fetched, masked], "by another worker, in their order"


def test_it_keeps_its_turn(desk: Desk) -> None:
    first = desk.accept("mallory")
    bobs = [desk.accept("bob"), desk.accept("bob")]
    assert _claimed(desk, "mallory") == bobs[0]
    assert _claimed(desk) == first


def test_no_more_than_a_hundred_are_passed_over_to_find_another(desk: Desk) -> None:
    many = limits(max_active=1000)
    desk.receive("mallory", count=100, limits=many)
    near = desk.accept("mallory", edit=STORED, limits=many)
    desk.receive("mallory", count=99, limits=many)
    far = desk.accept("mallory", edit=STORED, limits=many)
    assert [_claimed(desk, "mallory"), _claimed(desk, "mallory")] == [near, None]
    assert desk.read(far, "mallory").attempts == 0


def test_one_that_is_tried_again_is_known_as_fetched(desk: Desk) -> None:
    desk.accept("mallory")
    desk.run(claims.release(desk.claim()))
    assert _claimed(desk, "mallory") is None
