"""Which torch device a GPU type is, in which precision it computes, and whether this machine has it."""

import re

import torch

from storage.contracts.gpus import GpuType

MEMORY_TOLERANCE = 0.06
"""How far the driver's count of memory may be from the catalog's: ECC and the driver's own part differ a little."""

OTHER_CARDS = re.compile(r"\b(laptop|mig|max-q|d)\b")
"""Words after which a name means a slower card of the same number, or a slice of one."""


def check(gpu_type: str, expected: GpuType) -> None:
    """Whether this machine's GPU is what it is said to be, by its name, word for word, and its memory. Raises `ValueError`."""
    of(gpu_type)
    if gpu_type == "cpu":
        return
    name, memory_gb = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory / 1e9
    named = re.search(rf"(?<![\w-]){re.escape(expected.device_name.lower())}(?![\w-])", name.lower())
    if expected.device_name and (named is None or OTHER_CARDS.search(name.lower()[named.end() :])):
        raise ValueError(f"DARKROOM_GPU_TYPE is {gpu_type} ({expected.device_name}), but the device here is {name}")
    if abs(memory_gb / expected.memory_gb - 1) > MEMORY_TOLERANCE:
        raise ValueError(
            f"DARKROOM_GPU_TYPE is {gpu_type} with {expected.memory_gb:g} GB, but {name} here has {memory_gb:.1f} GB"
        )


def of(gpu_type: str) -> tuple[str, torch.dtype]:
    """Device and dtype. Raises `ValueError` when this machine has no GPU but is said to."""
    if gpu_type == "cpu":
        return "cpu", torch.float32
    if not torch.cuda.is_available():
        raise ValueError(f"DARKROOM_GPU_TYPE is {gpu_type}, but torch sees no CUDA device")
    return "cuda", torch.bfloat16
