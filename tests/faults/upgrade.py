"""`python -m tests.faults.upgrade --since <commit>`: an upgrade from an earlier commit, back, and again, under load.

Workers, API and housekeeping are replaced one by one in the order that `docs/operating.md` tells, and in the reverse one on the
way back; requests go on meanwhile. Exits 1 on any violation.
"""

import argparse
import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from infra import embedded, stack_options
from infra.children import Child
from tests.faults.conftest import SLEEPERS, fault_environment
from tests.faults.oracle import trial, verdict

ROOT = Path(__file__).parents[2]
MODULES = {
    "worker-1": "workers.gpu", "worker-2": "workers.gpu", "api": "api", "housekeeping": "workers.housekeeping",
}  # fmt: skip
"""In the order of an upgrade."""


@contextlib.contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The project as it was then, in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "then"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def replace(stack: embedded.Stack, name: str, checkout: Path) -> None:
    """End a process as an operator does, and start that of a checkout in its place."""
    before = stack.children.pop(name)
    before.stop()
    environment = {
        **before.environment,
        "PYTHONPATH": str(checkout),
        # Not what lies in the present folder.
        "PYTHONSAFEPATH": "1",
        "DARKROOM_CATALOG": f"{checkout / 'infra' / 'catalog.embedded.toml'}:{checkout / 'tests' / 'catalog.toml'}",
    }
    look = [sys.executable, "-c", "import api; print(api.__file__)"]
    found = subprocess.run(look, env=environment, check=True, capture_output=True, text=True).stdout
    if not Path(found).is_relative_to(checkout):
        raise RuntimeError(f"{found} would run, not what is in {checkout}")
    command = (sys.executable, "-m", MODULES[name])
    stack.children[name] = Child(name, command, environment, before.log_file)
    print(f"{time.strftime('%X')} {name} of {checkout.name}", flush=True)


def run(since: Path, folder: Path, *, clients: int, rest_s: float) -> verdict.Verdict:
    """Old, new, old, new, with `rest_s` after each replacement; then what became of everything."""
    settings = {"DARKROOM_WORKERS": "2", "DARKROOM_WEIGHTS_DIR": str(folder), "DARKROOM_ARCHIVE_AFTER_S": "5"}
    options = stack_options.Options.from_environment(fault_environment(folder, **settings, **SLEEPERS))
    with embedded.running(options) as stack:
        for name in MODULES:
            replace(stack, name, since)

        def replaced() -> None:
            time.sleep(2 * rest_s)
            for checkout, order in ((ROOT, list(MODULES)), (since, list(reversed(MODULES))), (ROOT, list(MODULES))):
                for name in order:
                    replace(stack, name, checkout)
                    time.sleep(rest_s)

        return trial.tried(stack, replaced, clients=clients, settle_s=120)


def main() -> None:
    parser = argparse.ArgumentParser(prog="upgrade", description=__doc__)
    parser.add_argument("--since", required=True, help="the commit of the release that is upgraded")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rest", type=float, default=6, help="seconds after each replacement")
    parser.add_argument("--keep", type=Path, help="folder for the stack's data and logs; default: a temporary one")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as name, checked_out(asked.since) as since:
        found = run(since, asked.keep or Path(name), clients=asked.clients, rest_s=asked.rest)
    print("\n".join(trial.lines(found)), flush=True)
    sys.exit(bool(found.violations))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
