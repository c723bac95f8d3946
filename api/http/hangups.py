"""Clients that hang up while they wait for an answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from api.http.turns import end_turn

T = TypeVar("T")


class HungUpError(Exception):
    """The client has gone; whatever is answered, nobody reads it. Ends a request with status 499."""


async def unless_hung_up(request: Request, waiting: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns. Raises `HungUpError` as soon as the client has gone; the coroutine is then cancelled."""
    end_turn(request)
    result = asyncio.ensure_future(waiting)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({result, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise HungUpError
        return await result
    finally:
        for task in (result, gone):
            task.cancel()
        await asyncio.gather(result, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
