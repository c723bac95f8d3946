"""A cancellation reaches the worker by message, not only by its next beat."""

import contextlib
import threading
import time

from storage import connections, keys
from storage.ledger import calls
from storage.settings import StoreSettings
from tests.conftest import eventually
from tests.stores.conftest import Desk
from workers.stopping import StopListener


def test_whoever_runs_a_generation_is_told_at_once_that_it_is_cancelled(desk: Desk, settings: StoreSettings) -> None:
    told = threading.Event()

    def listeners() -> int:
        return int(desk.connection.pubsub_numsub(keys.STOPPED)[0][1])  # type: ignore[index]

    others = listeners()
    with contextlib.closing(connections.connect(settings)) as connection:
        listener = StopListener(connection, lambda id_: told.set() if id_ == running else None)
        with contextlib.closing(listener):
            eventually(lambda: listeners() > others)
            running = desk.accept()
            desk.claim()
            began = time.monotonic()
            desk.run(calls.cancel(running, "alice"))
            assert told.wait(5)
            assert time.monotonic() - began < 0.3
