"""Waiting for a generation: long polls, and blocking calls whose client may hang up."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Collection

from starlette.requests import Request

from api.broadcast import Hub
from api.resources import Resources
from storage import connections
from storage.contracts import errors, events, generations
from storage.ledger import call, records

LOOK_AGAIN_S = 10.0
"""Events wake a waiter; should one be missed, the record is looked at again after this long."""


async def until_terminal(
    id_: str, tenant: str, *, hub: Hub, ledger: call.AsyncLedger, deadline: float
) -> generations.Generation:
    """The generation once it is terminal, or as it is at the deadline (`time.monotonic`).

    A store that fails meanwhile is asked again. Raises `errors.NotFoundError` and, at the deadline,
    `errors.StoreUnavailableError`.
    """

    def ends_it(event: events.Event) -> bool:
        return event.generation_id == id_ and event.type in events.TERMINAL

    while True:
        # Anew whenever this process lost its place in the log.
        with hub.subscribe(tenant, ends_it) as subscription:
            while not subscription.closed:
                pause_s = LOOK_AGAIN_S
                try:
                    generation = await ledger.run(records.read(id_, tenant))
                    if connections.is_cancelled():
                        raise asyncio.CancelledError
                    if generation.status.terminal or time.monotonic() >= deadline:
                        return generation
                except errors.TransientError as exc:
                    if time.monotonic() >= deadline:
                        raise
                    pause_s = exc.retry_after
                with contextlib.suppress(TimeoutError):
                    await subscription.next(max(0.0, min(deadline - time.monotonic(), pause_s)))


async def happenings(
    ids: Collection[str], tenant: str, *, hub: Hub, look_again_s: float = LOOK_AGAIN_S
) -> AsyncGenerator[events.Event | None]:
    """Events of these generations as they happen, without end. None: look at the records, for something may have been missed.

    That is said at first, after a pause, and whenever this process lost its place in the log.
    """
    while True:
        with hub.subscribe(tenant, lambda event: event.generation_id in ids) as subscription:
            yield None
            while True:
                try:
                    happened = await subscription.next(look_again_s)
                except TimeoutError:
                    yield None
                    continue
                if happened is None:
                    break
                yield happened
        await asyncio.sleep(0)


async def all_terminal(
    request: Request, receipt: records.Receipt, tenant: str, held: Resources, *, keep: bool = False
) -> list[generations.Generation] | None:
    """Every generation of a blocking request once it is terminal. A client that hangs up cancels them, unless `keep`.

    None: it hung up, and they are kept. Raises `errors.TimedOutError` after the settings' `blocking_limit_s`.
    """
    limit_s, ledger = held.settings.blocking_limit_s, held.ledger
    deadline = time.monotonic() + limit_s
    finished = []
    for id_ in receipt.ids:
        found = await until_terminal_or_hung_up(request, id_, tenant, hub=held.hub, ledger=ledger, deadline=deadline)
        if found is None and keep:
            return None
        if found is None or not found.status.terminal:
            for unfinished in receipt.ids:
                await ledger.run(records.cancel(unfinished, tenant))
            raise errors.TimedOutError(f"The edit took longer than {limit_s:g} seconds and was cancelled")
        finished.append(found)
    return finished


async def hung_up(request: Request) -> None:
    """Returns when the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def until_terminal_or_hung_up(
    request: Request, id_: str, tenant: str, *, hub: Hub, ledger: call.AsyncLedger, deadline: float
) -> generations.Generation | None:
    """Like `until_terminal`; None when the client hung up first."""
    waiting = asyncio.ensure_future(until_terminal(id_, tenant, hub=hub, ledger=ledger, deadline=deadline))
    gone = asyncio.ensure_future(hung_up(request))
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await waiting if waiting.done() else None
    finally:
        for task in (waiting, gone):
            task.cancel()
        await asyncio.gather(waiting, gone, return_exceptions=True)
