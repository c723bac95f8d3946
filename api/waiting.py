"""Waiting for a generation: long polls, and blocking calls whose client may hang up."""

import asyncio
import time

from starlette.requests import Request

from api.broadcast import Hub
from storage.contracts import events, generations
from storage.ledger import calls

LOOK_AGAIN_S = 10.0
"""Events wake a waiter; should one be missed, the record is looked at again after this long."""


async def until_terminal(
    id_: str, tenant: str, *, hub: Hub, ledger: calls.AsyncLedger, limit_s: float
) -> generations.Generation:
    """The generation once it is terminal, or as it is after `limit_s` seconds.

    Raises `errors.NotFoundError` and `errors.StoreUnavailableError`.
    """
    deadline = time.monotonic() + limit_s

    def ends_it(event: events.Event) -> bool:
        return event.generation_id == id_ and event.type in events.TERMINAL

    with hub.subscribe(tenant, ends_it) as subscription:
        while True:
            generation = await ledger.run(calls.read(id_, tenant))
            remaining = deadline - time.monotonic()
            if generation.status.terminal or remaining <= 0:
                return generation
            try:
                await subscription.next(min(remaining, LOOK_AGAIN_S))
            except TimeoutError:
                continue


async def hung_up(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def until_terminal_or_hung_up(
    request: Request, id_: str, tenant: str, *, hub: Hub, ledger: calls.AsyncLedger, limit_s: float
) -> generations.Generation | None:
    """Like `until_terminal`; None when the client hung up first."""
    waiting = asyncio.ensure_future(until_terminal(id_, tenant, hub=hub, ledger=ledger, limit_s=limit_s))
    gone = asyncio.ensure_future(hung_up(request))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await waiting if waiting.done() else None
    finally:
        for task in (waiting, gone):
            task.cancel()
        await asyncio.gather(waiting, gone, return_exceptions=True)
