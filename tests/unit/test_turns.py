"""A tenant that floods takes its turns one at a time while others are here, and is told late that it asks too much."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from api.http import turns as http_turns
from api.http.hangups import unless_hung_up
from api.http.turns import TakingTurns
from api.service import turns
from api.service.turns import Turns
from storage.contracts import errors
from tests.unit.test_pacing import Clock


async def _settled() -> None:
    """Whatever can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


class Crowd:
    """Requests that take a turn and keep it until they are told to end."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.at_work: list[str] = []

    def comes(self, tenant: str) -> asyncio.Task[None]:
        async def request() -> None:
            await self.turns.take(tenant)
            self.at_work.append(tenant)

        return asyncio.create_task(request())

    def ends(self, tenant: str) -> None:
        self.at_work.remove(tenant)
        self.turns.end(tenant)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def crowd(clock: Clock) -> Crowd:
    return Crowd(Turns(clock))


async def test_a_tenant_alone_has_many_turns_at_a_time(crowd: Crowd) -> None:
    for _ in range(50):
        crowd.comes("alice")
    await _settled()
    assert crowd.at_work == ["alice"] * turns.ALONE
    crowd.ends("alice")
    await _settled()
    assert crowd.at_work == ["alice"] * turns.ALONE


async def test_a_tenant_at_work_is_here_however_long_that_takes(crowd: Crowd, clock: Clock) -> None:
    crowd.comes("alice")
    await _settled()
    clock.now += 2 * turns.HERE_S
    for _ in range(3):
        crowd.comes("mallory")
    await _settled()
    assert crowd.at_work == ["alice", "mallory"]


async def test_so_many_wait_and_further_ones_are_refused(crowd: Crowd) -> None:
    crowd.comes("alice")
    tasks = [crowd.comes("mallory") for _ in range(turns.MOST_WAITING + 3)]
    await _settled()
    refused = [task for task in tasks if task.done() and task.exception()]
    assert [type(task.exception()) for task in refused] == [errors.TooManyRequestsError] * 2
    crowd.ends("mallory")
    await _settled()
    assert not crowd.comes("mallory").done()


async def test_beside_others_a_flood_is_worked_on_one_request_at_a_time(crowd: Crowd) -> None:
    crowd.comes("alice")
    await _settled()
    crowd.ends("alice")
    for _ in range(5):
        crowd.comes("mallory")
    await _settled()
    assert crowd.at_work == ["mallory"]
    crowd.comes("alice")
    await _settled()
    assert crowd.at_work == ["mallory", "alice"], "a tenant that does not flood does not wait for the flood"
    crowd.ends("mallory")
    await _settled()
    assert crowd.at_work == ["alice", "mallory"]


async def test_once_the_others_have_gone_all_that_wait_go_on(crowd: Crowd, clock: Clock) -> None:
    crowd.comes("alice")
    for _ in range(5):
        crowd.comes("mallory")
    await _settled()
    crowd.ends("alice")
    clock.now += turns.HERE_S + 0.1
    crowd.ends("mallory")
    await _settled()
    assert crowd.at_work == ["mallory"] * 4


async def test_a_request_that_was_given_up_takes_no_turn(crowd: Crowd) -> None:
    crowd.comes("alice")
    crowd.comes("mallory")
    await _settled()
    given_up, other = crowd.comes("mallory"), crowd.comes("mallory")
    await _settled()
    given_up.cancel()
    crowd.ends("mallory")
    await _settled()
    assert crowd.at_work == ["alice", "mallory"]
    assert other.done()


async def test_a_turn_given_to_a_request_that_has_just_gone_is_passed_on(crowd: Crowd) -> None:
    crowd.comes("alice")
    crowd.comes("mallory")
    await _settled()
    gone, other = crowd.comes("mallory"), crowd.comes("mallory")
    await _settled()
    crowd.ends("mallory")
    # It has its turn and has not gone on yet.
    gone.cancel()
    await _settled()
    assert other.done()


async def test_a_refusal_is_held_unless_very_many_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "HOLD_S", 3600)
    monkeypatch.setattr(turns, "MOST_HELD", 2)
    held = Turns()
    tasks = [asyncio.create_task(held.hold("mallory")) for _ in range(3)]
    tasks.append(asyncio.create_task(held.hold("alice")))
    await _settled()
    assert [task.done() for task in tasks] == [False, False, True, False]
    tasks[0].cancel()
    await _settled()
    tasks.append(asyncio.create_task(held.hold("mallory")))
    await _settled()
    assert not tasks[-1].done(), "the room of one that has gone is there for the next"
    for task in tasks:
        task.cancel()


class Service:
    """An application behind the middleware, with requests that go as far as they are let."""

    def __init__(self) -> None:
        self.app = TakingTurns(self._route)
        self.turns = Turns()
        self.at_work: list[str] = []
        self.go_on = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        http_turns.belongs_to(request, self.turns, scope["tenant"])
        await http_turns.take_turn(request)
        if scope["method"] == "POST" and "bare" not in scope:
            await request.body()
        self.at_work.append(scope["path"])
        if scope["path"] == "/poll":
            await unless_hung_up(request, self.go_on.wait())
        await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    def bare(self, tenant: str, path: str, method: str, headers: list[tuple[bytes, bytes]]) -> None:
        """A request whose route never asks for a body."""
        scope = {"type": "http", "method": method, "path": path, "headers": headers, "tenant": tenant, "bare": True}
        self._start(scope, asyncio.Future)

    def _start(self, scope: dict[str, Any], receive: Callable[[], Awaitable[Message]]) -> None:
        async def nothing(message: Message) -> None:
            return

        self.tasks.append(asyncio.create_task(self.app(scope, receive, nothing)))

    def request(self, tenant: str, path: str, receive: Callable[[], Awaitable[Message]] | None = None) -> None:
        headers = [] if receive is None else [(b"content-length", b"2")]
        scope: dict[str, Any] = {
            "type": "http", "method": "POST" if receive else "GET", "path": path, "headers": headers, "tenant": tenant,
        }  # fmt: skip

        self._start(scope, receive or asyncio.Future)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    one = Service()
    one.request("alice", "/elsewhere")
    await _settled()
    yield one
    for task in one.tasks:
        task.cancel()


async def test_an_answer_that_has_begun_needs_no_turn(service: Service) -> None:
    service.request("mallory", "/one")
    service.request("mallory", "/two")
    await _settled()
    assert service.at_work == ["/elsewhere", "/one"]
    service.go_on.set()
    await _settled()
    assert service.at_work == ["/elsewhere", "/one", "/two"]


async def test_a_request_that_waits_needs_no_turn(service: Service) -> None:
    service.request("mallory", "/poll")
    service.request("mallory", "/two")
    await _settled()
    assert service.at_work == ["/elsewhere", "/poll", "/two"]


async def test_a_request_that_ends_without_an_answer_gives_its_turn_back(service: Service) -> None:
    service.request("mallory", "/one")
    service.request("mallory", "/two")
    await _settled()
    service.tasks[1].cancel()
    await _settled()
    assert service.at_work == ["/elsewhere", "/one", "/two"]


async def test_a_body_that_is_still_coming_takes_no_turn(service: Service) -> None:
    rest = asyncio.Event()
    pieces: list[Message] = [
        {"type": "http.request", "body": b"[", "more_body": True},
        {"type": "http.request", "body": b"]", "more_body": False},
    ]

    async def slowly() -> Message:
        if len(pieces) == 1:
            await rest.wait()
        return pieces.pop(0)

    service.request("mallory", "/large", slowly)
    await _settled()
    service.request("mallory", "/small")
    await _settled()
    assert service.at_work == ["/elsewhere", "/small"]
    rest.set()
    await _settled()
    assert service.at_work == ["/elsewhere", "/small"], "whole now, it waits for its turn"
    service.go_on.set()
    await _settled()
    assert service.at_work == ["/elsewhere", "/small", "/large"]


async def test_a_request_that_says_that_it_has_no_body_takes_its_turn_at_once(service: Service) -> None:
    """Browsers and `requests` say so of a POST without one, and clients may say anything of a GET."""
    service.request("mallory", "/one")
    for method, length in (("POST", b"0"), ("DELETE", b"0"), ("GET", b"7")):
        service.bare("mallory", f"/{method}", method, [(b"content-length", length)])
    await _settled()
    assert service.at_work == ["/elsewhere", "/one"]


async def test_a_turn_is_over_after_a_while_whatever_it_waits_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_turns, "LONGEST_S", 0.01)
    service.request("mallory", "/stuck")
    service.request("mallory", "/two")
    await _settled()
    assert service.at_work == ["/elsewhere", "/stuck"]
    await asyncio.sleep(0.05)
    assert service.at_work == ["/elsewhere", "/stuck", "/two"]


async def test_a_turn_that_comes_too_late_is_given_back(service: Service) -> None:
    service.request("mallory", "/one")
    await _settled()
    late = http_turns._OfRequest(is_whole=True)
    late.belongs_to(service.turns, "mallory")
    taking = asyncio.create_task(late.take())
    await _settled()
    late.end()
    service.request("mallory", "/two")
    service.go_on.set()
    await _settled()
    assert taking.done()
    assert service.at_work == ["/elsewhere", "/one", "/two"]
