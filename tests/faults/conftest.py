"""A stack that is broken on purpose: supervised, so that what is killed is started again."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import requests

from infra import embedded, stack_options
from tests.conftest import TENANTS, Tenant, eventually, stack_environment

WORKERS = ("worker-1", "worker-2")

SLEEPERS = {
    # No torch: a worker that is killed is back in a second.
    "DARKROOM_MODELS": '["quick", "slow", "hanging", "lethal", "heavy"]',
    "DARKROOM_STALL_LIMIT_S": "4",
    # Heavy takes longer.
    "DARKROOM_LOAD_LIMIT_S": "1.5",
    "DARKROOM_GRACE_S": "10",
}


@dataclass
class Victim:
    """A running stack and ways to hurt it."""

    stack: embedded.Stack

    @property
    def alice(self) -> Tenant:
        return Tenant(self.stack.url, "alice", TENANTS["alice"])

    def is_back(self, pid: int) -> bool:
        """Whether another API process than this one, which may still be stopping, answers that it is ready."""
        if self.pid("api") == pid:
            return False
        try:
            return self.alice.get("/health/ready").status_code == 200
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
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    @contextmanager
    def no_worker_moves(self) -> Iterator[None]:
        """Both are stopped for as long as the block lasts."""
        # One that another test killed may still be on its way back.
        eventually(lambda: all(self.stack.children[worker].alive for worker in WORKERS))
        try:
            for worker in WORKERS:
                self.signal(worker, signal.SIGSTOP)
            yield
        finally:
            for worker in WORKERS:
                self.signal(worker, signal.SIGCONT)


@contextmanager
def supervised(data_dir: Path, *, through: Callable[[int], int] | None = None, **extra: str) -> Iterator[Victim]:
    """A stack whose processes are started again; `through` puts a proxy before each store, Redis first."""
    options = stack_options.Options.from_environment(stack_environment(data_dir, **extra))
    with embedded.running(replace(options, through=through) if through else options) as stack:
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
