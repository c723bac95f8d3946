"""Clients of both services: acknowledge, and be told of completion."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp


class Service(Protocol):
    """A service under measurement."""

    async def enqueue(self, model: str, image: str) -> str:
        """Returns the id once the service has acknowledged."""

    async def completed(self, id_: str) -> tuple[float, float]:
        """When the client learned of completion (`time.perf_counter`), and how long the pipeline took, in ms."""


class Naive:
    """The naive service: its status call blocks."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def enqueue(self, model: str, image: str) -> str:
        async with self._http.post("/edits", json={"model": model, "image": image, "prompt": "x"}) as answer:
            return str((await answer.json())["id"])

    async def completed(self, id_: str) -> tuple[float, float]:
        async with self._http.get(f"/edits/{id_}") as answer:
            body = await answer.json()
            return time.perf_counter(), body["execution_ms"]


class Darkroom:
    """Darkroom: one event stream tells of everything."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._told: dict[str, asyncio.Future[float]] = {}

    async def enqueue(self, model: str, image: str) -> str:
        body = {"model": model, "prompt": "x", "input_image": image, "aspect_ratio": "match_input_image"}
        async with self._http.post("/api/ai/queue", json=body) as answer:
            found = await answer.json()
            return str(found["generations"][0]["generation_id"])

    async def completed(self, id_: str) -> tuple[float, float]:
        told = await self._future(id_)
        async with self._http.get(f"/api/ai/queue/{id_}") as answer:
            found = await answer.json()
        assert found["status"] == "succeeded", found
        return told, found["execution_ms"]

    def _future(self, id_: str) -> asyncio.Future[float]:
        return self._told.setdefault(id_, asyncio.get_running_loop().create_future())

    async def listen(self) -> None:
        async with self._http.get("/api/events", params={"types": "media_generation_completed"}) as answer:
            async for line in answer.content:
                if line.startswith(b'data: {"generation_id"'):
                    self._future(json.loads(line[6:])["generation_id"]).set_result(time.perf_counter())


@asynccontextmanager
async def naive(url: str) -> AsyncIterator[Service]:
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(600), connector=_connector()) as http:
        yield Naive(http)


@asynccontextmanager
async def darkroom(url: str, key: str) -> AsyncIterator[Service]:
    headers = {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(600)
    async with aiohttp.ClientSession(
        url, headers=headers, timeout=timeout, connector=_connector(), read_bufsize=2**20
    ) as http:
        client = Darkroom(http)
        listening = asyncio.create_task(client.listen())
        yield client
        listening.cancel()


def _connector() -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(limit=400)
