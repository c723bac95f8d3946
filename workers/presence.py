"""Announces a worker while it runs, and reads the settings it starts with."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import redis

from storage import fleet, logs, setting_names
from storage.contracts import errors
from storage.settings import reason
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=WorkerSettings)


@contextlib.contextmanager
def every(seconds: float, what: str, action: Callable[[], object]) -> Iterator[None]:
    """Do something at once and then every so often, on a thread of its own, while the block runs; the log calls it `what`."""
    leaving = threading.Event()

    def run() -> None:
        while True:
            try:
                action()
            except (errors.TransientError, redis.RedisError) as exc:
                log.warning("%s: %s; tried again in %g s", what, exc, seconds)
            except Exception:
                log.exception("%s failed; tried again in %g s", what, seconds)
            if leaving.wait(seconds):
                return

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    try:
        yield
    finally:
        leaving.set()
        thread.join()


@contextlib.contextmanager
def announced(connection: redis.Redis, name: str, facts: Callable[[], Mapping[str, object]]) -> Iterator[None]:
    """Keep saying that this process is there, and what it is just then, while the block runs."""

    def say() -> None:
        with contextlib.suppress(redis.RedisError):
            fleet.announce(connection, name, facts())

    try:
        with every(fleet.ANNOUNCE_EVERY_S, "announcing this worker", say):
            yield
    finally:
        with contextlib.suppress(redis.RedisError):
            fleet.leave(connection, name)


def start(kind: type[Settings], run: Callable[[Settings], None]) -> None:
    """Set up logging, read settings and run; what does not fit ends the process with a sentence.

    Until what runs sees to SIGTERM itself, that ends the process at once: nothing is held yet. The first process of a container
    would pass over the signal, finish loading its models and take work.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        settings = kind()
        logs.configure(settings)
        setting_names.warn(os.environ)
        run(settings)
    except ValueError as exc:
        sys.exit(f"darkroom worker: {reason(exc)}")
