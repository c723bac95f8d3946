"""No way to name an internal address leads there: neither for pictures, nor for buckets, nor for webhooks."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

from tests.unit import url_matrix


def _may_isolate() -> bool:
    """Whether this machine lets a process have a network of its own; tried in a child."""
    flags = url_matrix.CLONE_NEWNET | (0 if os.getuid() == 0 else url_matrix.CLONE_NEWUSER)
    pid = os.fork()
    if pid == 0:
        os._exit(ctypes.CDLL(None).unshare(flags) != 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(not _may_isolate(), reason="this machine gives no network namespace")
def test_nothing_that_a_caller_names_is_reached_inside() -> None:
    command = [sys.executable, "-m", "tests.unit.url_matrix"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["missed"] == [], "what is public is reached, or nothing is shown"
    assert found["urls"] >= 250
    assert found["inside"] == []
