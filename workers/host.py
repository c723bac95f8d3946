"""The machine a worker runs on."""

import os


def memory_gb() -> float:
    """GB of memory that this machine has, or this container may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(limit) as file:  # noqa: PTH123  (a file of the kernel, not a path of ours)
                total = min(total, int(file.read()))
        except (OSError, ValueError):
            continue
    return total / 1e9
