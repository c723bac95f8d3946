"""The object store for coroutines: its calls block, so they run in a bounded pool of threads.

Under a burst these take a quarter of the processor's time that httpcore's own coroutines take, whose pool looks through all
connections for each request.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

from storage.objects import Entry, Objects

T = TypeVar("T")

THREADS = 8
"""Calls at the same time."""


class AsyncObjects:
    """`storage.objects.Objects` for the API."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="objects")
        # Whether the store answers is not to wait behind uploads.
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="objects-check")

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store. Raises `errors.ObjectsUnavailableError`."""
        await self._run(functools.partial(self._objects.put, key, body, content_type))

    async def copy(self, source: str, key: str) -> None:
        """Store again under another key. Raises `errors.ObjectsUnavailableError` and `errors.NotFoundError`."""
        await self._run(functools.partial(self._objects.copy, source, key))

    async def get(self, key: str, part: range | None = None) -> bytes:
        """Fetch, all of it or the bytes of `part`. Raises `errors.ObjectsUnavailableError` and `errors.NotFoundError`."""
        return await self._run(functools.partial(self._objects.get, key, part))

    async def size(self, key: str) -> int:
        """How many bytes it has. Raises `errors.ObjectsUnavailableError` and `errors.NotFoundError`."""
        return await self._run(functools.partial(self._objects.size, key))

    async def find(self, key: str) -> bytes | None:
        """Fetch what may be there. Raises `errors.ObjectsUnavailableError`."""
        return await self._run(functools.partial(self._objects.find, key))

    async def delete(self, key: str) -> None:
        """Remove an object, should it be there. Raises `errors.ObjectsUnavailableError`."""
        await self._run(functools.partial(self._objects.delete, key))

    async def entries(self, prefix: str) -> list[Entry]:
        """What lies below a prefix, a thousand at the most. Raises `errors.ObjectsUnavailableError`."""
        return await self._run(functools.partial(self._objects.entries, prefix))

    async def delete_prefix(self, prefix: str) -> int:
        """Remove everything below a prefix; how many objects that was. Raises `errors.ObjectsUnavailableError`."""
        return await self._run(functools.partial(self._objects.delete_prefix, prefix))

    async def check(self) -> None:
        """Is the bucket there? Raises `errors.ObjectsUnavailableError`."""
        await asyncio.get_running_loop().run_in_executor(self._asking, self._objects.check)

    def signed_url(self, key: str, expires_at: datetime) -> str:
        """A URL that downloads the object until `expires_at`. No round trip."""
        return self._objects.signed_url(key, expires_at)

    @property
    def origin(self) -> str:
        """Scheme and host of `signed_url`."""
        parts = urlsplit(self._objects.signed_url("results/", datetime.now(UTC)))
        return f"{parts.scheme}://{parts.netloc}"

    def close(self) -> None:
        """End the threads, close the connections."""
        for threads in (self._threads, self._asking):
            threads.shutdown(wait=False, cancel_futures=True)
        self._objects.close()
