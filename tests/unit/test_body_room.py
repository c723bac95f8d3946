"""Bodies of all requests together have so much room in a process, and give it back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from api.http import middleware
from api.http.middleware import BodyLimit
from storage.contracts import errors

MOST, ONE = 100, 60


class Reading:
    """An application that reads its body and then waits to answer."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.is_whole = asyncio.Event()
        self.read = 0
        self.tenant: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.tenant is not None:
            middleware.body_belongs_to(Request(scope), self.tenant)
        while True:
            message = await receive()
            self.read += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        self.is_whole.set()
        await self.answer.wait()


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Reading:
    monkeypatch.setattr(middleware, "SMALL", 20)
    return Reading()


@pytest.fixture
def limit(app: Reading) -> BodyLimit:
    return BodyLimit(app, max_bytes=MOST, most_held=MOST, pause_s=5, limit_s=5)


def _body(*pieces: bytes) -> Callable[[], Awaitable[Message]]:
    left = list(pieces)

    async def receive() -> Message:
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return receive


def _scope(declared: int | None) -> dict[str, Any]:
    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    return {"type": "http", "method": "POST", "path": "/", "headers": headers}


async def _send(message: Message) -> None:
    raise AssertionError(message)


def _begun(limit: BodyLimit, size: int, *, is_declared: bool) -> asyncio.Task[None]:
    body = _body(*[b"x" * 10] * (size // 10))
    return asyncio.create_task(limit(_scope(size if is_declared else None), body, _send))


@pytest.mark.parametrize("is_declared", [True, False])
async def test_what_has_no_room_is_refused_until_another_is_answered(
    app: Reading, limit: BodyLimit, is_declared: bool
) -> None:
    first = _begun(limit, ONE, is_declared=is_declared)
    await app.is_whole.wait()
    with pytest.raises(errors.StoreFullError) as refused:
        await _begun(limit, ONE, is_declared=is_declared)
    assert refused.value.retry_after > 0
    # As far as it has come: what somebody says that they will send takes nobody's room.
    assert app.read == MOST
    small = [_begun(limit, 20, is_declared=is_declared) for _ in range(10)]
    await asyncio.sleep(0)
    app.answer.set()
    await asyncio.gather(first, *small)
    await _begun(limit, MOST, is_declared=is_declared)


async def test_what_is_accepted_counts_no_more_while_its_client_waits(app: Reading, limit: BodyLimit) -> None:
    scope = _scope(MOST)
    first = asyncio.create_task(limit(scope, _body(*[b"x" * 10] * 10), _send))
    await app.is_whole.wait()
    middleware.release_body(Request(scope))
    app.answer.set()
    await _begun(limit, MOST, is_declared=False)
    await first
    await _begun(limit, MOST, is_declared=False)


async def test_a_cancelled_request_gives_its_room_back(app: Reading, limit: BodyLimit) -> None:
    first = _begun(limit, MOST, is_declared=True)
    await app.is_whole.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    app.answer.set()
    await _begun(limit, MOST, is_declared=False)


async def test_one_that_is_too_large_takes_no_room(app: Reading, limit: BodyLimit) -> None:
    with pytest.raises(errors.PayloadTooLargeError):
        await _begun(limit, MOST + 10, is_declared=True)
    with pytest.raises(errors.PayloadTooLargeError):
        await _begun(limit, MOST + 10, is_declared=False)
    app.answer.set()
    await _begun(limit, MOST, is_declared=True)


async def test_a_tenant_has_half_of_the_room(app: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "UNFINISHED", 10)
    limit = BodyLimit(app, max_bytes=40, most_held=MOST, pause_s=5, limit_s=5)
    app.tenant = "alice"
    first = _begun(limit, 40, is_declared=False)
    await app.is_whole.wait()
    small = _begun(limit, 10, is_declared=False)
    with pytest.raises(errors.StoreFullError, match="as much of yours"):
        await _begun(limit, 30, is_declared=False)
    app.tenant = "bob"
    another = _begun(limit, 40, is_declared=False)
    await asyncio.sleep(0)
    app.answer.set()
    await asyncio.gather(first, small, another)
    app.tenant = "alice"
    await _begun(limit, 40, is_declared=False)
    assert not limit._of_tenants


async def test_bodies_that_do_not_come_take_of_their_tenants_share(
    app: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "UNFINISHED", 10)
    limit = BodyLimit(app, max_bytes=40, most_held=MOST, pause_s=5, limit_s=5)
    app.tenant = "alice"
    pieces = iter([{"type": "http.request", "body": b"x", "more_body": True}] * 6)

    async def receive() -> Message:
        for piece in pieces:
            return piece
        return await asyncio.Event().wait()  # type: ignore[return-value]

    def begun() -> asyncio.Task[None]:
        async def one() -> Message:
            return await receive()

        first = iter([1])

        async def piece_by_piece() -> Message:
            if next(first, None):
                return await one()
            await asyncio.Event().wait()
            raise AssertionError

        return asyncio.create_task(limit(_scope(None), piece_by_piece, _send))

    slow = [begun() for _ in range(5)]
    await asyncio.sleep(0.01)
    with pytest.raises(errors.StoreFullError, match="as much of yours"):
        await begun()
    for one in slow:
        one.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert not limit._of_tenants
