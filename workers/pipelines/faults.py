"""What torch raises, in our words."""

import contextlib
from collections.abc import Iterator

import torch

from storage.contracts import errors


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raises `errors.OutOfMemoryError` and `errors.GpuFaultError` for what the block meets."""
    try:
        yield
    except torch.OutOfMemoryError as exc:
        raise errors.OutOfMemoryError("The GPU ran out of memory", retry_after=1.0) from exc
    except torch.AcceleratorError as exc:
        raise errors.GpuFaultError("The GPU reported a fault") from exc
