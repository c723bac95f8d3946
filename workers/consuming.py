"""Consuming tickets: a Celery worker of one thread, which serves until told to stop."""

import contextlib
import logging
import threading
import time
from typing import Protocol

import celery
import celery.worker.consumer
from celery import signals

from storage import queues
from workers.shutdown import Stopper

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""How often an idle worker looks for work that no ticket told it of."""

REFUSED_S = 1.0
"""How long a store that refused the consumer is left alone."""


class Server(Protocol):
    """What serves the work that tickets announce: a conveyor, for one."""

    def serve(self) -> None:
        """Serve until nothing waits."""
        ...

    def look_by_itself(self, every_s: float) -> None:
        """Serve now and then without a ticket, until told to stop."""
        ...


class Consumer(celery.worker.consumer.Consumer):  # type: ignore[misc]
    """Celery's. To a store that refuses it, being full or without a replica, it comes back once a second."""

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Told of what the store said instead of letting this connect."""
        super().on_connection_error_before_connected(exc)
        time.sleep(REFUSED_S)


def consume(
    app: celery.Celery,
    server: Server,
    stopper: Stopper,
    name: str,
    presence: contextlib.AbstractContextManager[None],
) -> None:
    """Serve tickets; `presence` announces the worker once it is ready. Returns when it was told to stop and holds nothing."""

    @app.task(name=queues.TASK, ignore_result=True)  # type: ignore[untyped-decorator]
    def serve() -> None:
        server.serve()

    with contextlib.ExitStack() as present:

        def ready(**_: object) -> None:
            stopper.install()
            threading.Thread(target=server.look_by_itself, args=[LOOK_S], name="look", daemon=True).start()
            present.enter_context(presence)

        # Connecting to it is how Celery is told to leave logging alone.
        signals.setup_logging.connect(lambda **_: None, weak=False)
        signals.worker_ready.connect(ready, weak=False)
        worker = app.Worker(
            consumer_cls=Consumer,
            # Threads, one of them: fork breaks CUDA; solo loses work at shutdown and doubles it when the broker restarts.
            pool="threads",
            concurrency=1,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            hostname=f"darkroom@{name}",
            loglevel="WARNING",
            quiet=True,
        )
        worker.start()
    log.warning("stopped; nothing is held")
