"""Redis and the object store by TLS: known by the authorities of the settings, and refused where those do not know them."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from pydantic import SecretStr

from infra import embedded
from storage import connections, queues, quick_objects
from storage.contracts import errors
from storage.objects import Objects
from storage.settings import StoreSettings
from tests.stores.conftest import QUEUE

AUTHORITY = trustme.CA()


class Terminator:
    """A server that speaks TLS to its callers, and passes on what they say to a port of this machine."""

    def __init__(self, port: int) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
        self._context, self._target = context, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[plain], daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(plain, server_side=True) as inner,
            socket.create_connection(("127.0.0.1", self._target)) as outer,
        ):
            there = threading.Thread(target=self._copy, args=[inner, outer], daemon=True)
            there.start()
            self._copy(outer, inner)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(file)
    return file


@pytest.fixture
def settings(stack: embedded.Stack, authority: Path) -> Iterator[StoreSettings]:
    plain_redis = stack.store.redis_url.get_secret_value()
    redis_port = int(plain_redis.rpartition(":")[2].partition("/")[0])
    s3_port = int(str(stack.store.s3_endpoint_url).rpartition(":")[2])
    with contextlib.ExitStack() as closing:
        ports = [closing.enter_context(contextlib.closing(Terminator(port))).port for port in (redis_port, s3_port)]
        secure_redis = plain_redis.replace("redis://", "rediss://").replace(f":{redis_port}/0", f":{ports[0]}/1")
        changes: dict[str, Any] = {
            "redis_url": SecretStr(secure_redis),
            "s3_endpoint_url": f"https://127.0.0.1:{ports[1]}",
            "store_authority": authority,
        }
        yield stack.store.model_copy(update=changes)


def test_a_known_redis_is_talked_to(settings: StoreSettings) -> None:
    with contextlib.closing(connections.connect(settings)) as connection:
        assert connection.ping()


async def _ping(settings: StoreSettings) -> bool:
    async with connections.connect_async(settings) as connection:
        return bool(await connection.ping())


def test_a_known_redis_is_talked_to_by_the_api(settings: StoreSettings) -> None:
    assert asyncio.run(_ping(settings))


def test_tickets_go_to_a_known_redis(settings: StoreSettings) -> None:
    queues.send_ticket(queues.celery_app(settings, [QUEUE]), QUEUE)
    with contextlib.closing(connections.connect(settings)) as connection:
        connection.flushdb()


def test_objects_go_to_a_known_store_quickly_and_patiently(settings: StoreSettings) -> None:
    objects = Objects(settings)
    assert objects._quick is not None
    assert objects._quick.put("results/tls/quick", b"1", "image/png"), "over the plain connection"
    objects.put_patiently("results/tls/patient", b"2", "image/png")
    assert (objects.get("results/tls/quick"), objects.get("results/tls/patient")) == (b"1", b"2")
    assert objects.delete_prefix("results/tls/") == 2
    objects.close()


@pytest.fixture
def suspicious(settings: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> StoreSettings:
    """Somebody who knows the system's authorities alone."""
    for name in quick_objects.CERTIFICATES:
        monkeypatch.delenv(name, raising=False)
    return settings.model_copy(update={"store_authority": None})


def test_an_unknown_redis_is_refused(suspicious: StoreSettings) -> None:
    with contextlib.closing(connections.connect(suspicious)) as connection, pytest.raises(redis.ConnectionError):
        connection.ping()
    with pytest.raises(errors.StoreUnavailableError):
        queues.send_ticket(queues.celery_app(suspicious, [QUEUE]), QUEUE)


def test_an_unknown_object_store_is_refused(suspicious: StoreSettings) -> None:
    with pytest.raises(errors.ObjectsUnavailableError):
        Objects(suspicious).check()
    objects = Objects(suspicious)
    assert objects._quick is not None
    assert not objects._quick.put("results/tls/quick", b"1", "image/png")
