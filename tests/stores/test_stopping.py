"""A cancellation reaches the worker by message, not only by its next beat."""

import contextlib
import threading
import time
from urllib.parse import urlsplit

import pytest
import redis
from pydantic import SecretStr

from storage import connections, keys
from storage.ledger import records
from storage.settings import StoreSettings
from tests.conftest import eventually
from tests.faults.oracle.proxy import Proxy
from tests.stores.conftest import Desk
from workers.stopping import StopListener


def _listeners(desk: Desk) -> int:
    return int(desk.connection.pubsub_numsub(keys.STOPPED)[0][1])  # type: ignore[index]


def test_the_worker_that_runs_a_generation_is_told_at_once_that_it_is_cancelled(
    desk: Desk, settings: StoreSettings
) -> None:
    told = threading.Event()
    others = _listeners(desk)
    running = desk.accept()
    with contextlib.closing(connections.connect(settings)) as connection:
        listener = StopListener(connection, lambda id_: told.set() if id_ == running else None)
        with contextlib.closing(listener):
            eventually(lambda: _listeners(desk) > others)
            desk.claim()
            began = time.monotonic()
            desk.run(records.cancel(running, "alice"))
            assert told.wait(5)
            assert time.monotonic() - began < 1


def test_a_listener_to_whom_nothing_is_said_keeps_its_connection(
    settings: StoreSettings, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    class Counting(redis.client.PubSub):
        def subscribe(self, *channels: str) -> object:
            nonlocal asked
            asked += 1
            return super().subscribe(*channels)

    with contextlib.closing(connections.connect(settings)) as connection:
        connection.pubsub = lambda: Counting(connection.connection_pool)  # type: ignore[method-assign]
        with contextlib.closing(StopListener(connection, lambda _: None, ping_s=0.9)):
            eventually(lambda: asked > 3)
    assert "not listening" not in caplog.text


def test_a_listener_whose_connection_died_without_a_word_listens_again(desk: Desk, settings: StoreSettings) -> None:
    address = urlsplit(settings.redis_url.get_secret_value())
    assert address.port
    heard: list[str] = []
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(contextlib.closing(Proxy(address.port)))
        url = address._replace(netloc=address.netloc.replace(str(address.port), str(proxy.port))).geturl()
        through = settings.model_copy(update={"redis_url": SecretStr(url)})
        connection = stack.enter_context(contextlib.closing(connections.connect(through)))
        others = _listeners(desk)
        stack.enter_context(contextlib.closing(StopListener(connection, heard.append, ping_s=0.3)))
        eventually(lambda: _listeners(desk) > others)
        desk.connection.publish(keys.STOPPED, "before")
        eventually(lambda: "before" in heard)
        proxy.strand()

        def told_again() -> bool:
            desk.connection.publish(keys.STOPPED, "after")
            return "after" in heard

        eventually(told_again, within_s=10)
