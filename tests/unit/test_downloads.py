"""Of a download no more is held than a piece."""

from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.http import downloads
from api.service.signing import STORED

BODY = bytes(range(256)) * 4096
"""A mebibyte, and of bytes that tell where they stand."""


class Counted:
    """An object store with one object."""

    def __init__(self) -> None:
        self.asked: list[range | None] = []

    async def size(self, key: str) -> int:
        return len(BODY)

    async def get(self, key: str, part: range | None = None) -> bytes:
        self.asked.append(part)
        return BODY if part is None else BODY[part.start : part.stop]


@pytest.fixture
def objects() -> Counted:
    return Counted()


@pytest.fixture
def client(objects: Counted) -> TestClient:
    app = FastAPI()
    app.include_router(downloads.router)
    app.state.resources = SimpleNamespace(objects=objects, signatures=SimpleNamespace(is_link=lambda path, proof: True))
    return TestClient(app)


def test_it_is_fetched_a_piece_at_a_time(client: TestClient, objects: Counted) -> None:
    assert client.get(f"{STORED}results/a/b/1.webp").content == BODY
    assert len(objects.asked) == len(BODY) // downloads.PIECE
    assert all(part is not None and len(part) == downloads.PIECE for part in objects.asked)


def test_of_a_part_no_more_than_that_is_fetched(client: TestClient, objects: Counted) -> None:
    first = downloads.PIECE - 2
    headers = {"Range": f"bytes={first}-{first + 9}"}
    assert client.get(f"{STORED}results/a/b/1.webp", headers=headers).content == BODY[first : first + 10]
    assert objects.asked == [range(first, first + 10)]


def test_to_ask_about_it_nothing_is_fetched(client: TestClient, objects: Counted) -> None:
    answer = client.head(f"{STORED}results/a/b/1.webp")
    assert (answer.headers["Content-Length"], objects.asked) == (str(len(BODY)), [])
