"""Child processes of the embedded stack: started, started again, stopped, and never left behind."""

import contextlib
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

log = logging.getLogger(__name__)

GRACE_S = 130.0
"""Longer than a worker takes to hand its work back."""
QUICK_S = 10.0
"""A death this soon after the start is a quick one."""
QUICK_DEATHS = 5
"""After so many in a row it is started again only every `REST_S`."""
REST_S = 2.0
_TIED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A program that becomes another one, which the kernel ends with its parent (PR_SET_PDEATHSIG). A `preexec_fn` would do the same
between fork and exec, where a process that has threads may find a lock held for ever."""


def _tied(command: Sequence[str]) -> list[str]:
    """The command as it is run: should the stack be killed outright, it ends."""
    return [sys.executable, "-ISc", _TIED, *command] if sys.platform == "linux" else list(command)


def _why(code: int | None) -> str:
    """How a process ended, by its exit code; one of a signal is negative."""
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return f"signal {-(code or 0)}"


class Process(Protocol):
    """A process that was started: what is used of a `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def poll(self) -> int | None:
        """How it ended: its exit code, or a signal's number below zero; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended; raises `subprocess.TimeoutExpired`."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class Child:
    """One process with its log file; without one it writes where this process does."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log_file: Path | None
    ) -> None:
        self.name = name
        self._log_file = log_file
        self.command = tuple(command)
        self.environment = dict(environment)
        self._quick_deaths = 0
        if log_file is not None:
            log_file.parent.mkdir(parents=True, exist_ok=True)
        self._start()

    def _start(self) -> None:
        self._started = time.monotonic()
        self._log_begins = self._log_file.stat().st_size if self._log_file and self._log_file.exists() else 0
        self._process = self.launched()

    def launched(self) -> Process:
        """A new process of this child's."""
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(self._log_file.open("ab")) if self._log_file else None
            return subprocess.Popen(
                _tied(self.command),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A session of its own: Ctrl-C in the terminal is ours to pass on, in the right order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def restart_if_dead(self) -> None:
        """Start it again when it died: at once, or after a rest when it keeps dying."""
        age = time.monotonic() - self._started
        if age > QUICK_S:
            self._quick_deaths = 0
        if self.alive or (self._quick_deaths >= QUICK_DEATHS and age < REST_S):
            return
        self._quick_deaths += 1
        ended = f"{self.name} ended ({_why(self._process.poll())})"
        log.warning("%s and is started again; see %s", ended, self._log_file or "what it wrote")
        if self._quick_deaths >= QUICK_DEATHS:
            log.warning("%s keeps dying; see %s", self.name, self._log_file or "what it wrote")
        self._start()

    @property
    def log_file(self) -> Path:
        """Where it writes. Raises `ValueError` when that is where this process does."""
        if self._log_file is None:
            raise ValueError(f"{self.name} has no log file")
        return self._log_file

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def stop(self) -> None:
        """Ask it to end; end it when it does not within the grace period."""
        self.terminate()
        self.wait(GRACE_S)

    def wait(self, grace_s: float) -> None:
        """Until it has ended; end it when it does not within so many seconds."""
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end within %g s, and is killed", self.name, grace_s)
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """The end of what it has written to its log since it was started."""
        return self.log_file.read_bytes()[self._log_begins :].decode(errors="replace")[-2000:]
