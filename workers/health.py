"""`python -m workers.health`: exits 0 when the worker in this container announces itself. For container health checks."""

import contextlib
import os
import socket
import sys

from storage import connections
from storage.contracts import errors
from storage.ledger import presence
from storage.ledger.execution import RedisLedger
from workers.settings import WorkerSettings


def main() -> None:
    """Look for a worker of this host."""
    try:
        with contextlib.closing(connections.connect(WorkerSettings())) as connection:
            own = os.environ.get("DARKROOM_WORKER_NAME", socket.gethostname() + "-")
            here = [name for name in RedisLedger(connection).run(presence.present()) if name.startswith(own)]
    except errors.TransientError as exc:
        sys.exit(str(exc))
    if not here:
        sys.exit("no worker of this host is announced")


if __name__ == "__main__":
    main()
