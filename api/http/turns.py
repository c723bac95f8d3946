"""A request's turn (`api.service.turns`): from when it is known whose it is and its body is whole to the head of its answer.

It ends before a wait, too: a long poll, a blocking edit.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.service.turns import Turns

_TURN = "darkroom.turn"


class _OfRequest:
    """Taken once, ended once."""

    def __init__(self, *, is_whole: bool) -> None:
        self._turns: Turns | None = None
        self._tenant = ""
        self._is_whole, self._is_taken, self._is_over = is_whole, False, False

    def belongs_to(self, turns: Turns, tenant: str) -> None:
        self._turns, self._tenant = turns, tenant

    async def body_is_whole(self) -> None:
        self._is_whole = True
        await self.take()

    async def take(self) -> None:
        if self._turns is not None and self._is_whole and not self._is_taken and not self._is_over:
            await self._turns.take(self._tenant)
            self._is_taken = True

    def end(self) -> None:
        if self._turns is not None and self._is_taken and not self._is_over:
            self._turns.end(self._tenant)
        self._is_over = True

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
        names = {name for name, _ in scope["headers"]}
        turn = _OfRequest(is_whole=not names & {b"content-length", b"transfer-encoding"})
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
