"""Counts a module's bytes and the most that its activations take at once, on torch's meta device: shapes without memory."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from workers.pipelines import execution, fp8

GB = 1e9


def built(kind: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """A module in bf16 that has shapes and no memory."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return kind(*arguments, **more).eval()
    finally:
        torch.set_default_dtype(before)


def weights_gb(module: torch.nn.Module) -> float:
    """GB of weights in bf16."""
    return float(sum(weight.numel() for weight in module.parameters()) * 2 / GB)


def layers(part: torch.nn.Module) -> list[dict[str, float]]:
    """The kinds of a part's repeated layers, in the order in which they run: as the catalog lists them."""
    kinds = []
    for stack in execution.stacks(part):
        quantised = sum(linear.weight.numel() for _, _, linear in fp8.linears(stack[0])) * 2 / GB
        kinds.append({"count": len(stack), "gb": weights_gb(stack[0]), "quantised": quantised})
    return kinds


def outside_gb(part: torch.nn.Module) -> float:
    """GB of a part's weights that belong to no layer."""
    return weights_gb(part) - sum(weights_gb(stack) for stack in execution.stacks(part))


class _Live(TorchDispatchMode):  # type: ignore[misc]
    """Follows every tensor that lives; a view is its base."""

    def __init__(self, weights: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._weights = {tensor.untyped_storage()._cdata for tensor in weights}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = function(*arguments, **(named or {}))
        self._live = {key: entry for key, entry in self._live.items() if not entry[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._weights:
                    self._live.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.most = max(self.most, sum(size for _, size in self._live.values()))
        return result


@contextlib.contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as a fused kernel has it: a result, and no matrix of every token with every token."""

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.empty_like(query)

    with mock.patch("torch.nn.functional.scaled_dot_product_attention", attend):
        yield


def activations_gb(module: torch.nn.Module, call: Callable[[], object]) -> float:
    """GB that a call takes at the most besides the weights, its result among them."""
    live = _Live([*module.parameters(), *module.buffers()])
    with torch.inference_mode(), _fused_attention(), live:
        call()
    return live.most / GB


def meta(*shape: int) -> torch.Tensor:
    """A bf16 tensor of that shape."""
    return torch.empty(*shape, device="meta", dtype=torch.bfloat16)
