"""The object store for coroutines: small objects over connections of the event loop, everything else by boto3 in threads."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TypeVar

import httpcore

from storage import signed_requests
from storage.objects import CONNECTIONS, KEPT_S, Objects

T = TypeVar("T")

THREADS = 8
"""Calls of boto3 at the same time: it blocks."""


class AsyncObjects:
    """`storage.objects.Objects` for the API."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="objects")
        self._connections = httpcore.AsyncConnectionPool(max_connections=CONNECTIONS, keepalive_expiry=KEPT_S)

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store. Raises `errors.ObjectsUnavailableError`."""
        request = self._objects.signed_put(key, body, content_type)
        if request is None or not await self._is_done(request):
            await self._run(functools.partial(self._objects.put_patiently, key, body, content_type))

    async def _is_done(self, request: signed_requests.SignedRequest) -> bool:
        try:
            answer = await self._connections.request(
                request.method,
                request.url,
                headers=request.headers,
                content=request.body,
                extensions=signed_requests.extensions(),
            )
        except signed_requests.FAULTS:
            return False
        return answer.status == 200

    async def copy(self, source: str, key: str) -> None:
        """Store again under another key. Raises `errors.ObjectsUnavailableError` and `errors.NotFoundError`."""
        await self._run(functools.partial(self._objects.copy, source, key))

    async def get(self, key: str) -> bytes:
        """Fetch. Raises `errors.ObjectsUnavailableError` and `errors.NotFoundError`."""
        return await self._run(functools.partial(self._objects.get, key))

    async def delete_prefix(self, prefix: str) -> None:
        """Remove everything below a prefix. Raises `errors.ObjectsUnavailableError`."""
        await self._run(functools.partial(self._objects.delete_prefix, prefix))

    async def check(self) -> None:
        """Is the bucket there? Raises `errors.ObjectsUnavailableError`."""
        await self._run(self._objects.check)

    def signed_url(self, key: str, expires_at: datetime) -> str:
        """A URL that downloads the object until `expires_at`. No round trip."""
        return self._objects.signed_url(key, expires_at)

    async def close(self) -> None:
        """End the threads, close the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._connections.aclose()
        self._objects.close()
