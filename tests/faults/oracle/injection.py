"""Faults, one at a time or overlapping, chosen at random from a seed."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from infra.children import Child
from tests.faults.oracle.proxy import Proxy


class Injector:
    """Breaks a service for as long as it is told.

    `children` are its processes by their names in a stack; faults of what is not among them are left out.
    """

    def __init__(
        self, children: Mapping[str, Child], redis: Proxy, objects: Proxy | None, *, seed: int, pause_s: float
    ) -> None:
        self._children = children
        self._random = random.Random(seed)
        self._pause_s = pause_s
        self._workers = [name for name in children if name.startswith("worker-")]
        self.injected: Counter[str] = Counter()
        self._faults: dict[str, Callable[[], None]] = {
            "worker killed": lambda: self._signal(self._a_worker(), signal.SIGKILL),
            "worker told to end": lambda: self._signal(self._a_worker(), signal.SIGTERM),
            "worker frozen past its lease": lambda: self._freeze(self._a_worker(), 4.5),
            "api killed": lambda: self._signal("api", signal.SIGKILL),
            "store killed": lambda: self._signal("valkey", signal.SIGKILL),
            "store frozen": lambda: self._freeze("valkey", 4),
            "store connections reset": redis.cut,
            "store connections half-open": lambda: self._for(redis.freeze, 3),
            "store refuses connections": lambda: self._for(redis.refuse, 2),
            "store replies lost": lambda: redis.swallow_replies(5),
            "store slow": lambda: self._slow(redis),
        }
        if "housekeeping" in children:
            self._faults["housekeeping killed"] = lambda: self._signal("housekeeping", signal.SIGKILL)
        if objects is not None:
            self._faults |= {
                "object store killed": lambda: self._signal("s3", signal.SIGKILL),
                "object store frozen": lambda: self._freeze("s3", 3),
                "object store connections reset": objects.cut,
                "object store replies lost": lambda: objects.swallow_replies(2),
            }

    def run(self, until: float, stopping: threading.Event) -> None:
        """Inject until the clock (`time.monotonic`) says so."""
        # Every kind once first, in random order; then at random.
        order = list(self._faults)
        self._random.shuffle(order)
        while time.monotonic() < until and not stopping.wait(self._random.uniform(0.5, 1.5) * self._pause_s):
            name = order.pop() if order else self._random.choice(list(self._faults))
            self._faults[name]()
            self.injected[name] += 1

    def freeze_worker(self, name: str, seconds: float) -> None:
        """One chosen fault, for runs that need just that."""
        self._freeze(name, seconds)
        self.injected["worker frozen past its lease"] += 1

    def _a_worker(self) -> str:
        return self._random.choice(self._workers)

    def _signal(self, name: str, number: signal.Signals) -> None:
        child = self._children[name]
        if child.alive:
            os.kill(child.pid, number)

    def _freeze(self, name: str, seconds: float) -> None:
        pid = self._children[name].pid
        if self._children[name].alive:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)

    def _for(self, switch: Callable[[bool], None], seconds: float) -> None:
        switch(True)
        time.sleep(seconds)
        switch(False)

    def _slow(self, proxy: Proxy) -> None:
        proxy.delay(0.2)
        time.sleep(3)
        proxy.delay(0)
