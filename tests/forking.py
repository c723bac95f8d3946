"""Processes of the tests' stacks, forked from one that has imported what they import.

To import torch, diffusers and FastAPI takes a worker five seconds of processor time and an API two, more than most tests give
them to do. What runs is the same. How processes are started elsewhere is tried by the tests that run `python -m infra.up`,
the oracle's among them.
"""

import ctypes
import faulthandler
import gc
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from infra.children import GRACE_S, Child, Process

_PR_SET_PDEATHSIG = 1
"""As in linux/prctl.h."""


class ForkedChild(Child):
    """A child that is forked where it runs a Python module. Other programs, and other systems than Linux, are as ever."""

    def launched(self) -> Process:
        match self.command:
            case (sys.executable, "-m", module) if sys.platform == "linux":
                return _Forked(module, self.environment, self.log_file)
            case _:
                return super().launched()


class _Forked:
    """What `infra.children` needs of a `subprocess.Popen`."""

    def __init__(self, module: str, environment: Mapping[str, str], log_file: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.preloaded"])
        # A daemon is ended with this process where nobody stopped it.
        self._process = context.Process(target=_run, args=(module, dict(environment), log_file), daemon=True)
        self._process.start()
        self._log_file = log_file
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None and timeout == GRACE_S:
            # Nothing that a test does takes so long: it hangs.
            os.kill(self.pid, signal.SIGUSR1)
            self._process.join(1)
            self._process.kill()
            raise AssertionError(f"it does not end: {self._log_file.read_text()[-8000:]}")
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _run(module: str, environment: Mapping[str, str], log_file: Path) -> None:
    """What becomes of the fork: the module as a program, with what `infra.children` gives a process."""
    # What was imported is shared with the other forks for as long as no collection looks at it.
    gc.freeze()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()
    with log_file.open("ab") as output, Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    faulthandler.register(signal.SIGUSR1, file=2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
