"""Waiting until generations are over."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Collection, Sequence

import anyio

from api.service.archive import Archive
from api.service.read import Reader, ResultView
from api.service.watch import Hub
from storage import connections
from storage.contracts import errors, events, generations

LOOK_AGAIN_S = 10.0
"""Events wake a waiter; should one be missed, the record is looked at again after this long."""


class Waiter:
    """Waits for generations of a tenant; `limit_s` is how long a blocking request may take."""

    def __init__(self, *, hub: Hub, archive: Archive, reader: Reader, limit_s: float) -> None:
        self._hub = hub
        self._archive = archive
        self._reader = reader
        self._limit_s = limit_s

    async def until_over(self, id_: str, tenant: str, *, deadline: float) -> ResultView:
        """The generation once it is terminal, or as it is at the deadline (`time.monotonic`).

        A store that fails meanwhile is asked again. Raises `errors.NotFoundError` and, at the deadline,
        `errors.StoreUnavailableError`.
        """

        def ends_it(event: events.Event) -> bool:
            return event.generation_id == id_ and event.type in events.TERMINAL

        while True:
            # Anew whenever this process lost its place in the log.
            with self._hub.subscribe(tenant, ends_it) as subscription:
                while not subscription.closed:
                    pause_s = LOOK_AGAIN_S
                    try:
                        view = await self._reader.one(id_, tenant)
                        if connections.is_cancelled():
                            raise asyncio.CancelledError
                        if view.is_over or time.monotonic() >= deadline:
                            return view
                    except errors.TransientError as exc:
                        if time.monotonic() >= deadline:
                            raise
                        pause_s = exc.retry_after
                    with contextlib.suppress(TimeoutError):
                        await subscription.next(max(0.0, min(deadline - time.monotonic(), pause_s)))

    async def until_all_over(self, ids: Sequence[str], tenant: str) -> list[ResultView]:
        """Every generation of a blocking request once it is terminal.

        Raises `errors.TimedOutError` after `limit_s`, when those that are unfinished are cancelled.
        """
        deadline = time.monotonic() + self._limit_s
        views = [await self.until_over(id_, tenant, deadline=deadline) for id_ in ids]
        if not all(view.is_over for view in views):
            await self.cancel(ids, tenant)
            # The last may have ended meanwhile.
            views = [await self._reader.one(id_, tenant) for id_ in ids]
            if any(view.generation.status is generations.Status.CANCELLED for view in views):
                raise errors.TimedOutError(f"The edit took longer than {self._limit_s:g} seconds and was cancelled")
        return views

    async def cancel(self, ids: Collection[str], tenant: str) -> None:
        """Cancel what is unfinished of these. Raises `errors.StoreUnavailableError`."""
        for id_ in ids:
            await self._archive.cancel(id_, tenant)

    async def happenings(
        self, ids: Collection[str], tenant: str, *, stopping: anyio.Event, look_again_s: float = LOOK_AGAIN_S
    ) -> AsyncGenerator[events.Event | None]:
        """Events of these generations as they happen, until `stopping`. None: look at the records.

        That is said at first, after a pause, and whenever this process lost its place in the log: something may have been missed.
        """
        while not stopping.is_set():
            with self._hub.subscribe(
                tenant, lambda event: event.generation_id in ids, stopping=stopping
            ) as subscription:
                yield None
                while True:
                    try:
                        event = await subscription.next(look_again_s)
                    except TimeoutError:
                        yield None
                        continue
                    if event is None:
                        break
                    yield event
            await asyncio.sleep(0)
