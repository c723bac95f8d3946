"""Whether the parts of a stack are ready, and what is missing."""

import contextlib
import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping

import redis

from infra import stack_options
from infra.children import Child
from storage import connections
from storage.contracts import errors
from storage.ledger import presence
from storage.ledger.execution import RedisLedger
from storage.objects import Objects
from storage.settings import StoreSettings

log = logging.getLogger(__name__)

START_LIMIT_S = 120.0
SILENT_S = 15.0
"""Of a start, before it is told what is waited for."""


def wait(what: str, children: Mapping[str, Child], missing: Callable[[], str]) -> None:
    """Until nothing is missing. Raises `stack_options.StartError`."""
    begun, is_told = time.monotonic(), False
    while what_is_missing := missing():
        for child in children.values():
            if not child.alive:
                raise stack_options.StartError(f"{child.name} ended while {what} started:\n{child.last_words()}")
        waited_s = time.monotonic() - begun
        if waited_s > START_LIMIT_S:
            raise stack_options.StartError(f"{what} did not get ready within {START_LIMIT_S:g} s: {what_is_missing}")
        if waited_s > SILENT_S and not is_told:
            is_told = True
            log.info("waiting for %s: %s", what, what_is_missing)
        time.sleep(0.1)


def unanswered(store: StoreSettings) -> str:
    """Which store does not answer, and what it says instead; nothing once both do."""
    try:
        with contextlib.closing(connections.connect(store)) as connection:
            connection.ping()
    except redis.RedisError as exc:
        return f"Redis (REDIS_URL): {exc}"
    try:
        with contextlib.closing(Objects(store)) as objects:
            objects.ensure_bucket()
    except errors.ObjectsUnavailableError as exc:
        return f"the object store (S3_ENDPOINT_URL): {exc}"
    return ""


def api_answers(url: str) -> bool:
    """Whether the API says that it is ready."""
    try:
        # Our own address; whom the certificate names is for those who come from elsewhere.
        unverified = ssl._create_unverified_context()  # noqa: S323
        with urllib.request.urlopen(f"{url}/health/ready", timeout=2, context=unverified):  # noqa: S310
            return True
    except urllib.error.HTTPError as refused:
        refused.close()
        return False
    except OSError:
        return False


def are_present(store: StoreSettings, workers: list[Child]) -> bool:
    """Whether all of these workers have announced themselves."""
    try:
        with contextlib.closing(connections.connect(store)) as connection:
            names = RedisLedger(connection).run(presence.present())
    except errors.TransientError:
        return False
    return all(any(name.endswith((f"-{child.pid}", f"-{child.name}")) for name in names) for child in workers)
