"""A client that waits for an answer is told when the server stops, in words that a program knows."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from api import app
from api.dialects import base
from api.http import hangups
from storage.contracts import errors


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hangups, "LAST_S", 0.0)
    monkeypatch.setattr(hangups, "end_turn", lambda request: None)


class Request:
    """One whose client stays; its process stops, or does not."""

    def __init__(self, *, is_stopping: bool) -> None:
        stopping = asyncio.Event()
        if is_stopping:
            stopping.set()
        self.app = SimpleNamespace(state=SimpleNamespace(stopping=stopping))
        self.scope: dict[str, Any] = {}

    async def receive(self) -> dict[str, str]:
        await asyncio.Event().wait()
        return {}


class Service:
    """Of which nothing is ever over."""

    def __init__(self) -> None:
        self.cancelled: list[str] = []
        self.waiter = self.reader = self

    async def until_all_over(self, ids: Sequence[str], tenant: str) -> list[Any]:
        await asyncio.Event().wait()
        return []

    async def until_over(self, id_: str, tenant: str, *, deadline: float) -> None:
        await asyncio.Event().wait()

    async def cancel(self, ids: Sequence[str], tenant: str) -> None:
        self.cancelled += ids

    async def accepted(self, accepted: Any) -> list[str]:
        return [f"{id_} as it was accepted" for id_ in accepted.ids]


ACCEPTED: Any = SimpleNamespace(ids=("g",), tenant="alice")


@pytest.mark.parametrize("keep", [False, True])
async def test_a_blocking_request_ends_with_the_process_and_so_does_what_nobody_knows_the_id_of(keep: bool) -> None:
    service: Any = Service()
    request: Any = Request(is_stopping=True)
    with pytest.raises(errors.RestartingError):
        await base.finished(request, service, ACCEPTED, "alice", keep=keep)
    assert service.cancelled == ([] if keep else ["g"])


async def test_a_request_that_waits_for_a_while_is_answered_with_the_id() -> None:
    service: Any = Service()
    request: Any = Request(is_stopping=True)
    assert await base.waited(request, service, ACCEPTED, seconds=60) == ["g as it was accepted"]
    assert service.cancelled == []


async def test_nothing_ends_before() -> None:
    async def soon() -> str:
        await asyncio.sleep(0)
        return "over"

    request: Any = Request(is_stopping=False)
    assert await hangups.unless_hung_up(request, soon()) == "over"


async def test_a_waiting_client_hears_of_it_when_the_server_was_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "LOOK_S", 0.0)
    told = iter([False, True])
    state = SimpleNamespace(is_stopping=lambda: next(told), stopping=asyncio.Event())
    await app._told_to_stop(SimpleNamespace(state=state))  # type: ignore[arg-type]
    assert state.stopping.is_set()
