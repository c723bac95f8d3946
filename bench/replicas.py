"""`python -m bench.replicas`: what accepting an edit in the ledger takes with a replica that is waited for, and without."""

import argparse
import contextlib
import statistics
import tempfile
import time
import uuid
from pathlib import Path

from pydantic import SecretStr

from storage import connections
from storage.ledger.execution import RedisLedger, Replicas
from storage.settings import StoreSettings
from tests.faults.failover.servers import replicated
from tests.faults.test_failover import creation


def main() -> None:
    parser = argparse.ArgumentParser(prog="replicas", description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    rounds = parser.parse_args().rounds
    took_ms: dict[int, list[float]] = {0: [], 1: []}
    with contextlib.ExitStack() as stack:
        servers = stack.enter_context(replicated(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        settings = StoreSettings(REDIS_URL=SecretStr(servers.url))
        connection = stack.enter_context(contextlib.closing(connections.connect(settings)))
        ledgers = {count: RedisLedger(connection, Replicas(count=count)) for count in took_ms}
        for _ in range(rounds):
            for count, ledger in ledgers.items():
                began = time.perf_counter()
                ledger.run(creation(str(uuid.uuid4())))
                took_ms[count].append(1000 * (time.perf_counter() - began))
    print("| replicas waited for | p50, ms | p99, ms |\n|---|---|---|")
    for count, each in took_ms.items():
        print(f"| {count} | {statistics.median(each):.1f} | {statistics.quantiles(each, n=100)[98]:.1f} |")


if __name__ == "__main__":
    main()
