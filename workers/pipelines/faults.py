"""What torch raises, in our words."""

import contextlib
import gc
import logging
import traceback
from collections.abc import Iterator

import torch

from storage.contracts import errors

log = logging.getLogger(__name__)

EXHAUSTED = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "out of memory",
    "unable to find an engine to execute this computation",
)
"""In the message of a RuntimeError: a library of CUDA found no memory for its workspace. The last is cuDNN's: torch tries its
convolutions one after another and leaves out those for which there is no memory."""


def is_exhaustion(exc: RuntimeError) -> bool:
    """Whether torch or a library of CUDA found no memory."""
    return isinstance(exc, torch.OutOfMemoryError) or any(words in str(exc) for words in EXHAUSTED)


def is_fault(exc: RuntimeError) -> bool:
    """Whether nothing can be computed any more in this process.

    An illegal access is told as a plain RuntimeError where cuBLAS, cuDNN or Triton meets it; then whatever comes next fails, too.
    """
    if isinstance(exc, torch.AcceleratorError):
        return True
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raises `errors.OutOfMemoryError` and `errors.GpuFaultError` for what the block meets.

    When memory ran out, what the block had computed so far is gone from the GPU before the error is raised.
    """
    try:
        yield
    except RuntimeError as exc:  # the root of torch's own errors
        if not is_exhaustion(exc):
            if is_fault(exc):
                raise errors.GpuFaultError("The GPU reported a fault") from exc
            raise
        log.warning("out of memory: %s", str(exc).partition("\n")[0][:300])
        # The frames that the traceback passes through hold the activations.
        traceback.clear_frames(exc.__traceback__)
    else:
        return
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise errors.OutOfMemoryError("The GPU ran out of memory", retry_after=1.0)
