"""Small objects go over a plain connection; whatever goes wrong there, they are stored and fetched all the same."""

import contextlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore
import pytest

from infra import embedded
from storage import quick_objects
from storage.contracts import errors
from storage.objects import Objects

BODY = bytes(range(256))


@pytest.fixture
def objects(stack: embedded.Stack) -> Iterator[Objects]:
    with contextlib.closing(Objects(stack.store)) as one:
        yield one


@pytest.fixture
def key() -> str:
    return f"files/alice/{uuid.uuid4()} of ümlauts+plus.png"


@pytest.fixture
def no_boto(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("boto3 was asked")

    monkeypatch.setattr(Objects, "put_patiently", refused)


def _content_type(objects: Objects, key: str) -> str:
    return str(objects._client.head_object(Bucket=objects._bucket, Key=key)["ContentType"])


@pytest.mark.usefixtures("no_boto")
def test_a_small_object_is_stored_and_fetched_without_boto3(objects: Objects, key: str) -> None:
    objects.put(key, BODY, "image/png")
    assert objects.get(key) == BODY
    assert _content_type(objects, key) == "image/png"


class Broken:
    """Connections that fail, or answer with a status."""

    def __init__(self, status: int | None = None) -> None:
        self.status = status
        self.asked = 0

    def request(self, *_: object, **__: object) -> httpcore.Response:
        self.asked += 1
        if self.status is None:
            raise httpcore.ConnectError
        return httpcore.Response(self.status)


@pytest.mark.parametrize("status", [None, 403, 500])
def test_what_goes_wrong_there_is_done_again_by_boto3(
    objects: Objects, key: str, monkeypatch: pytest.MonkeyPatch, status: int | None
) -> None:
    broken: Any = Broken(status)
    assert objects._quick is not None
    monkeypatch.setattr(objects._quick, "_connection", lambda: broken)
    objects.put(key, BODY, "image/png")
    assert objects.get(key) == BODY
    assert broken.asked == 2


def test_an_object_that_is_not_there_is_said_to_be(objects: Objects, key: str) -> None:
    with pytest.raises(errors.NotFoundError):
        objects.get(key)


def test_a_large_object_is_boto3s(objects: Objects, key: str) -> None:
    assert objects._quick is not None
    assert not objects._quick.put(key, b"x" * (quick_objects.SMALL + 1), "image/png")
    assert objects._quick.put(key, b"x" * quick_objects.SMALL, "image/png")


@pytest.mark.parametrize(
    ("endpoint_url", "variable", "is_signed_here"),
    [
        (None, None, False),
        ("https://s3.example.com", None, True),
        ("https://s3.example.com", "AWS_CA_BUNDLE", False),
        ("http://s3.example.com", "AWS_CA_BUNDLE", True),
    ],
)
def test_where_boto3_knows_more_nothing_is_signed_here(
    stack: embedded.Stack,
    objects: Objects,
    monkeypatch: pytest.MonkeyPatch,
    endpoint_url: str | None,
    variable: str | None,
    is_signed_here: bool,
) -> None:
    for name in quick_objects.CERTIFICATES:
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "/etc/ssl/own.pem")
    settings = stack.store.model_copy(update={"s3_endpoint_url": endpoint_url})
    assert objects._quick is not None
    assert (quick_objects.opened(settings, objects._quick._credentials) is not None) is is_signed_here


def test_of_a_store_that_knows_no_ranges_the_part_is_cut_out(
    objects: Objects, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.put(key, bytes(range(100)), "image/png")
    assert objects.get(key, range(10, 20)) == bytes(range(10, 20))
    assert objects._quick is not None
    monkeypatch.setattr(objects._quick, "get", lambda key, headers: bytes(range(100)))
    assert objects.get(key, range(10, 20)) == bytes(range(10, 20))


def test_each_thread_has_a_connection_of_its_own_and_all_are_closed(stack: embedded.Stack, key: str) -> None:
    objects = Objects(stack.store)
    assert objects._quick is not None
    met = threading.Barrier(3)

    def put(n: int) -> None:
        met.wait(timeout=10)
        objects.put(f"{key}{n}", BODY, "image/png")

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(put, range(3)))
    pools = objects._quick._pools
    assert [len(pool.connections) for pool in pools] == [1, 1, 1]
    objects.close()
    assert [len(pool.connections) for pool in pools] == [0, 0, 0]
