"""A stack that is broken on purpose: supervised, so that what is killed is started again."""

import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from infra import embedded, stack_options
from tests.conftest import TENANTS, Tenant, eventually, stack_environment
from tests.forking import ForkedChild

WORKERS = ("worker-1", "worker-2")

SLEEPERS = {
    # No torch: a worker that is killed is back in a second.
    "DARKROOM_MODELS": '["quick", "slow", "hanging", "lethal", "heavy"]',
    "DARKROOM_STALL_LIMIT_S": "4",
    # Heavy takes longer.
    "DARKROOM_LOAD_LIMIT_S": "1.5",
    "DARKROOM_GRACE_S": "10",
}


AGAIN = Retry(
    connect=0, read=0, status=10, status_forcelist=[503], allowed_methods=None, raise_on_status=False, backoff_factor=0.1
)  # fmt: skip
"""What a caller does who is told that the store does not answer now."""


class Persistent(Tenant):
    """A caller who asks again after a 503: reads, and what has an idempotency key."""

    def post(self, path: str, body: object = None, **more: Any) -> requests.Response:
        headers = {**self.headers, **more.pop("headers", {})}
        if "Idempotency-Key" not in headers:
            return super().post(path, body, headers=headers, **more)
        return self._again("POST", path, json=body, headers=headers, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self._again("GET", path, headers={**self.headers, **more.pop("headers", {})}, **more)

    def enqueue(
        self, image: str, *, model: str = "quick", headers: dict[str, str] | None = None, **fields: object
    ) -> str:
        once = {"Idempotency-Key": secrets.token_hex(8), **(headers or {})}
        return super().enqueue(image, model=model, headers=once, **fields)

    def _again(self, method: str, path: str, **more: Any) -> requests.Response:
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=AGAIN))
            return session.request(method, self.url + path, timeout=60, **more)


@dataclass
class Victim:
    """A running stack and ways to hurt it."""

    stack: embedded.Stack

    @property
    def alice(self) -> Tenant:
        return Persistent(self.stack.url, "alice", TENANTS["alice"])

    def is_back(self, pid: int) -> bool:
        """Whether another API process than this one, which may still be stopping, answers that it is ready."""
        if self.pid("api") == pid:
            return False
        try:
            return requests.get(f"{self.stack.url}/health/ready", timeout=60).status_code == 200
        except requests.ConnectionError:
            return False

    def pid(self, name: str) -> int:
        return self.stack.children[name].pid

    def listening(self, name: str) -> Callable[[], str]:
        """What its log says from now on."""
        log_file = self.stack.children[name].log_file
        begun = log_file.stat().st_size
        return lambda: log_file.read_bytes()[begun:].decode(errors="replace")

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send it to the process of this name, whose id is returned; a killed one has ended, and is known to have."""
        child = self.stack.children[name]
        pid = child.pid
        os.kill(pid, number)
        if number == signal.SIGKILL:
            eventually(lambda: child.pid != pid or not child.alive)
        return pid

    def await_workers(self) -> None:
        """One that another test killed may still be on its way back."""
        eventually(lambda: all(self.stack.children[worker].alive for worker in WORKERS))

    @contextmanager
    def no_worker_moves(self) -> Iterator[None]:
        """Both are stopped for as long as the block lasts."""
        self.await_workers()
        with ExitStack() as stopped:
            for worker in WORKERS:
                stopped.callback(os.kill, self.signal(worker, signal.SIGSTOP), signal.SIGCONT)
            yield


def fault_environment(data_dir: Path, **extra: str) -> dict[str, str]:
    """A stack's environment in which a dead process is noticed soon, and a silent store within the shipped limit."""
    return stack_environment(data_dir, **{"DARKROOM_LEASE_S": "3", "DARKROOM_REDIS_TIMEOUT_S": "1.5", **extra})


@contextmanager
def supervised(data_dir: Path, *, through: Callable[[int], int] | None = None, **extra: str) -> Iterator[Victim]:
    """A stack whose processes are started again; `through` puts a proxy before each store, Redis first."""
    options = stack_options.Options.from_environment(fault_environment(data_dir, **extra))
    with embedded.running(replace(options, through=through) if through else options, ForkedChild) as stack:
        stopping = threading.Event()
        watcher = threading.Thread(target=stack.watch, args=[stopping])
        watcher.start()
        try:
            yield Victim(stack)
        finally:
            stopping.set()
            watcher.join()


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with supervised(tmp_path_factory.mktemp("victim"), DARKROOM_WORKERS="2", **SLEEPERS) as one:
        yield one
