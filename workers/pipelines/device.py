"""Which torch device a GPU type is, in which precision it computes, and how a pipeline is put there."""

from typing import Any

import torch

from storage.contracts.placement import Placement


def check(gpu_type: str, device_name: str) -> None:
    """Whether this machine's GPU is what it is said to be. Raises `ValueError`."""
    of(gpu_type)
    if gpu_type != "cpu":
        found = torch.cuda.get_device_name()
        if device_name.lower() not in found.lower():
            raise ValueError(f"DARKROOM_GPU_TYPE is {gpu_type} ({device_name}), but the device here is {found}")


def of(gpu_type: str) -> tuple[str, torch.dtype]:
    """Device and dtype. Raises `ValueError` when this machine has no GPU but is said to."""
    if gpu_type == "cpu":
        return "cpu", torch.float32
    if not torch.cuda.is_available():
        raise ValueError(f"DARKROOM_GPU_TYPE is {gpu_type}, but torch sees no CUDA device")
    return "cuda", torch.bfloat16


def placed(pipe: Any, placement: Placement, device: str, dtype: torch.dtype) -> Any:
    """Put every part where the placement says: on the device, or streamed to it block by block with overlapped copies."""
    if placement.weights == "fp8":
        pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    for name, part in pipe.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        streamed = placement.transformer == "streamed" if name == "transformer" else placement.encoder == "streamed"
        if name == "vae" or not streamed:
            part.to(device)
        else:
            _stream(part, device)
    return pipe


def _stream(part: torch.nn.Module, device: str) -> None:
    from diffusers.hooks import apply_group_offloading

    overlapped = device == "cuda"
    apply_group_offloading(
        part,
        onload_device=torch.device(device),
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=overlapped,
        record_stream=overlapped,
        non_blocking=overlapped,
    )
