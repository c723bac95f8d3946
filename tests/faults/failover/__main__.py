"""`python -m tests.faults.failover --faults 20`: a whole service under load while its primary is killed and frozen in turn."""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from infra import embedded, stack_options
from tests.faults.conftest import SLEEPERS, fault_environment
from tests.faults.failover.servers import Servers, hurt, replicated
from tests.faults.oracle import trial, verdict


def run(
    folder: Path, faults: Callable[[Servers], None], *, clients: int, settle_s: float, wait_replicas: int
) -> verdict.Verdict:
    """Load while `faults` does its worst; then what became of it."""
    with replicated(folder) as servers:
        data = folder / "stack"
        settings = {
            "DARKROOM_WORKERS": "2", "DARKROOM_WEIGHTS_DIR": str(folder), "DARKROOM_ARCHIVE_AFTER_S": "3",
            "DARKROOM_WAIT_REPLICAS": str(wait_replicas), "DARKROOM_LEASE_S": "10", "REDIS_URL": servers.url,
        }  # fmt: skip
        environment = fault_environment(data, **SLEEPERS, **settings)
        with embedded.running(stack_options.Options.from_environment(environment)) as stack:
            begun = {name: child.pid for name, child in stack.children.items()}
            found = trial.tried(stack, lambda: faults(servers), clients=clients, settle_s=settle_s)
            # A worker that was started again has all its models to load.
            found.violations += [f"ended: {name}" for name, pid in begun.items() if stack.children[name].pid != pid]
            return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="failover", description=__doc__)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--wait-replicas", type=int, default=1, help="0 shows what is lost without")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    gaps: list[float] = []

    def faults(servers: Servers) -> None:
        for number in range(asked.faults):
            time.sleep(3)
            gaps.append(hurt(servers, is_frozen=number % 2 == 1, away_s=3))
            print(f"{'frozen' if number % 2 else 'killed'}: {gaps[-1]:.1f} s without a primary", flush=True)
        time.sleep(3)

    with tempfile.TemporaryDirectory() as name:
        found = run(Path(name), faults, clients=asked.clients, settle_s=120, wait_replicas=asked.wait_replicas)
    print(
        f"{asked.faults} faults, {statistics.median(gaps):.1f} s without a primary in the middle, {max(gaps):.1f} s at most"
    )
    print("\n".join(trial.lines(found)))
    sys.exit(bool(found.violations))


if __name__ == "__main__":
    main()
