"""A request's turn (`api.service.turns`): from when it is known whose it is and its body is whole to the head of its answer.

It ends before a wait, too (a long poll, a blocking edit), and after `LONGEST_S` in any case: it is for the event loop's time,
and who waits for a store that does not answer takes none of that.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.service.turns import Turns

LONGEST_S = 0.25
"""Seconds that a turn lasts at most."""

WITHOUT_BODY = ("GET", "HEAD", "DELETE")

_TURN = "darkroom.turn"


class _OfRequest:
    """Taken once, ended once."""

    def __init__(self, *, is_whole: bool) -> None:
        self._turns: Turns | None = None
        self._tenant = ""
        self._is_whole, self._is_asked_for, self._is_over = is_whole, False, False
        self._timer: asyncio.TimerHandle | None = None

    def belongs_to(self, turns: Turns, tenant: str) -> None:
        self._turns, self._tenant = turns, tenant

    async def body_is_whole(self) -> None:
        self._is_whole = True
        await self.take()

    async def take(self) -> None:
        if self._turns is None or not self._is_whole or self._is_asked_for or self._is_over:
            return
        self._is_asked_for = True
        await self._turns.take(self._tenant)
        self._timer = asyncio.get_running_loop().call_later(LONGEST_S, self.end)
        if self._is_over:
            self._give_back()

    def end(self) -> None:
        self._is_over = True
        self._give_back()

    def _give_back(self) -> None:
        if self._turns is not None and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._turns.end(self._tenant)

    async def hold(self) -> None:
        self.end()
        if self._turns is not None:
            await self._turns.hold(self._tenant)


class TakingTurns:
    """Gives each request one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it; whose it is is told by `belongs_to`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        turn = _OfRequest(is_whole=is_empty or scope["method"] in WITHOUT_BODY)
        scope[_TURN] = turn

        async def received() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                await turn.body_is_whole()
            return message

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                turn.end()
            await send(message)

        try:
            await self._app(scope, received, answered)
        finally:
            turn.end()


def belongs_to(request: Request, turns: Turns, tenant: str) -> None:
    """A request is this tenant's."""
    _of(request).belongs_to(turns, tenant)


async def take_turn(request: Request) -> None:
    """Go on when it is the tenant's turn; a request whose body is still coming waits for its turn once that is whole."""
    await _of(request).take()


def end_turn(request: Request) -> None:
    """From here on the request waits."""
    _of(request).end()


async def hold_refusal(request: Request) -> None:
    """Keep one waiting who asks too much. A request of nobody's is not held."""
    await _of(request).hold()


def _of(request: Request) -> _OfRequest:
    turn: _OfRequest = request.scope[_TURN]
    return turn
