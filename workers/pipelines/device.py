"""Which torch device a GPU type is, and in which precision it computes."""

import torch


def of(gpu_type: str) -> tuple[str, torch.dtype]:
    """Device and dtype. Raises `ValueError` when this machine has no GPU but is said to."""
    if gpu_type == "cpu":
        return "cpu", torch.float32
    if not torch.cuda.is_available():
        raise ValueError(f"DARKROOM_GPU_TYPE is {gpu_type}, but torch sees no CUDA device")
    return "cuda", torch.bfloat16
