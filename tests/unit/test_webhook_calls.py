"""Test calls are few, and a webhook that cannot be read holds up no other."""

import asyncio
from typing import Any, cast

import pytest

from api.webhooks import delivery
from api.webhooks.calls import Calls, Outcome
from api.webhooks.pings import AT_ONCE, Pings
from storage.contracts import errors
from storage.ledger.webhooks import DueWebhook
from tests.stores.conftest import a_submission


class _Slow:
    """Receivers that answer once they may."""

    limit_s = 10.0

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def post(self, *_: object) -> Outcome:
        await self.gate.wait()
        return Outcome(text="answered 200", status=200)


async def test_a_tenant_has_one_test_call_at_a_time_and_all_have_a_few() -> None:
    slow = _Slow()
    pings = Pings(cast("Calls", slow))
    first = [asyncio.create_task(pings.send(f"tenant-{n}", "http://a/", b"", {})) for n in range(AT_ONCE)]
    await asyncio.sleep(0)
    for tenant in ("tenant-0", "another"):
        with pytest.raises(errors.TooManyRequestsError):
            await pings.send(tenant, "http://a/", b"", {})
    slow.gate.set()
    assert {one.status for one in await asyncio.gather(*first)} == {200}
    assert (await pings.send("another", "http://a/", b"", {})).status == 200


async def test_a_test_call_whose_caller_has_gone_has_its_place_until_it_ends() -> None:
    slow = _Slow()
    pings = Pings(cast("Calls", slow))
    first = asyncio.create_task(pings.send("tenant", "http://a/", b"", {}))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    with pytest.raises(errors.TooManyRequestsError):
        await pings.send("tenant", "http://a/", b"", {})
    slow.gate.set()
    await asyncio.sleep(0.01)
    assert (await pings.send("tenant", "http://a/", b"", {})).status == 200


@pytest.mark.parametrize("url", ["https://[", "http://a\uff0fb/", "http://a/"])
def test_a_url_that_is_none_has_a_destination_of_its_own(url: str) -> None:
    recorded: Any = a_submission(webhook={"url": url, "dialect": "oxen"}).recorded()
    due = DueWebhook(
        moment="completed", tries=0, held_until="1", record={"id": "1", "tenant": "alice", "submission": recorded}
    )
    tenant, _ = delivery._destination(due)
    assert tenant == "alice"
    damaged = DueWebhook(moment="completed", tries=0, held_until="1", record={"id": "1", "tenant": "alice"})
    assert delivery._destination(damaged) == ("alice", "")


def test_what_is_erased_early_is_told_of_before() -> None:
    early = DueWebhook(
        moment="completed", tries=0, held_until="1", record={"id": "1", "tenant": "a", "keep_ms": "600000"}
    )
    assert early.longest_rest_s == 75
