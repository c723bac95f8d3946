"""`python -m tests.faults.oracle --seconds 1200`: run the oracle and print what it found; exits 1 on any violation."""

import argparse
import logging
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from PIL import Image

from infra import embedded, stack_options
from storage import events
from tests.conftest import data_uri, encoded
from tests.faults.conftest import SLEEPERS, fault_environment
from tests.faults.oracle import injection, load, verdict
from tests.faults.oracle.proxy import Proxy


def run(
    seconds: float,
    *,
    pause_s: float,
    seed: int,
    clients: int,
    settle_s: float,
    folder: Path,
    only_freezes: bool = False,
) -> int:
    """Load, faults, verdict. Returns how many violations there were."""
    proxies: dict[str, Proxy] = {}

    def through(port: int) -> int:
        proxy = Proxy(port)
        proxies["redis" if not proxies else "objects"] = proxy
        return proxy.port

    # Stand-ins need no weights.
    settings = {"DARKROOM_WORKERS": "2", "DARKROOM_WEIGHTS_DIR": str(folder), "DARKROOM_ARCHIVE_AFTER_S": "2"}
    environment = fault_environment(folder, **settings, **SLEEPERS)
    options = replace(stack_options.Options.from_environment(environment), through=through)
    with embedded.running(options) as stack:
        book, stopping = load.Book(), threading.Event()
        watcher = threading.Thread(target=stack.watch, args=[stopping])
        watcher.start()
        until = time.monotonic() + seconds
        image = data_uri(encoded(Image.new("RGB", (64, 64), "teal"), "PNG"))
        listener = load.Listener(stack, book, events.cursor_at(1), seed=seed)
        listener.start()
        submitters = [
            load.Submitter(stack, book, image, until=until, number=seed * 100 + n, pause_s=0.6) for n in range(clients)
        ]
        for submitter in submitters:
            submitter.start()
        injector = injection.Injector(stack.children, proxies["redis"], proxies["objects"], seed=seed, pause_s=pause_s)
        if only_freezes:
            # Uploads take long, so that what is frozen is mostly about to publish.
            proxies["objects"].delay(0.3)
            while time.monotonic() < until:
                for name in ("worker-1", "worker-2"):
                    injector.freeze_worker(name, 4.5)
            proxies["objects"].delay(0)
        else:
            injector.run(until, stopping)
        for submitter in submitters:
            submitter.join()
        found = verdict.reach(stack, book, settle_s=settle_s)
        _print(found, injector, book, seconds)
        listener.stopping.set()
        stopping.set()
        watcher.join()
    for proxy in proxies.values():
        proxy.close()
    return len(found.violations)


def _print(found: verdict.Verdict, injector: injection.Injector, book: load.Book, seconds: float) -> None:
    print(f"{seconds:g} seconds, {sum(injector.injected.values())} faults of {len(injector.injected)} kinds:")
    for name, count in sorted(injector.injected.items()):
        print(f"  {count:4d} {name}")
    print(f"accepted {found.accepted}: {dict(found.statuses)}; {found.second_attempts} took more than one attempt")
    if len(found.recovery_ms) > 1:
        percentiles = statistics.quantiles(found.recovery_ms, n=100, method="inclusive")
        print(f"from one attempt's start to the next one's: p50 {percentiles[49]:.0f} ms, p99 {percentiles[98]:.0f} ms")
    print(f"event reader resumed {book.resumed} times")
    print(f"lost {len(found.lost)}, doubled {len(found.doubled)}, stuck {len(found.stuck)}")
    for violation in found.violations[:20]:
        print(f"VIOLATION {violation}")
    print("good" if not found.violations else f"{len(found.violations)} violations", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="oracle", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=3, help="seconds between faults, on average")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--settle", type=float, default=120, help="seconds to wait for what is unfinished at the end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only-freezes", action="store_true", help="freeze workers past their leases and do nothing else"
    )
    parser.add_argument("--keep", type=Path, help="folder for the stack's data and logs; default: a temporary one")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        violations = run(
            asked.seconds,
            pause_s=asked.pause,
            seed=asked.seed,
            clients=asked.clients,
            settle_s=asked.settle,
            folder=asked.keep or Path(name),
            only_freezes=asked.only_freezes,
        )
    sys.exit(bool(violations))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
