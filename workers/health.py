"""`python -m workers.health`: exits 0 when the worker in this container announces itself. For container health checks."""

import contextlib
import os
import socket
import sys

import redis

from storage import connections, fleet
from workers.settings import WorkerSettings


def main() -> None:
    """Look for a worker of this host."""
    try:
        with contextlib.closing(connections.connect(WorkerSettings())) as connection:
            own = os.environ.get("DARKROOM_WORKER_NAME", socket.gethostname() + "-")
            here = [name for name in fleet.present(connection) if name.startswith(own)]
    except redis.RedisError as exc:
        sys.exit(f"the store does not answer ({type(exc).__name__})")
    if not here:
        sys.exit("no worker of this host is announced")


if __name__ == "__main__":
    main()
