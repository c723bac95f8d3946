"""Clients that hang up while they wait for an answer, and processes that stop meanwhile."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from api.http.turns import end_turn
from storage.contracts import errors

T = TypeVar("T")


LAST_S = 10.0
"""How long what is waited for may still come once the process is to stop: half of what the server gives its requests."""

AGAIN_S = 2.0


HUNG_UP = 499
"""The status of a request whose client left before there was an answer; no standard has one."""


class HungUpError(Exception):
    """The client has gone; whatever is answered, nobody reads it."""


async def unless_hung_up(request: Request, waiting: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns.

    Raises `HungUpError` as soon as the client has gone, and `errors.RestartingError` a while after this process was told to stop;
    the coroutine is then cancelled.
    """
    end_turn(request)
    result = asyncio.ensure_future(waiting)
    gone = asyncio.ensure_future(_gone(request))
    stopped = asyncio.ensure_future(_stopped(request))
    try:
        await asyncio.wait({result, gone, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return await result
        if gone.done():
            raise HungUpError
        raise errors.RestartingError("The service restarts; ask again", retry_after=AGAIN_S)
    finally:
        for task in (result, gone, stopped):
            task.cancel()
        await asyncio.gather(result, gone, stopped, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stopped(request: Request) -> None:
    await request.app.state.stopping.wait()
    await asyncio.sleep(LAST_S)
