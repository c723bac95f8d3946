"""Encoded prompts: remembered, and as files."""

from collections import OrderedDict
from collections.abc import Callable

import safetensors.torch
import torch

_EMBEDDINGS = "embeddings"
PROMPTS_KEPT = 64
"""Embeddings of prompts are 4 to 16 MB each, in the memory of the machine."""


def packed(embeddings: torch.Tensor) -> bytes:
    """Embeddings (1, tokens, width) as safetensors."""
    return safetensors.torch.save({_EMBEDDINGS: embeddings.cpu().contiguous()})


def unpacked(data: bytes) -> torch.Tensor:
    """What was packed."""
    return safetensors.torch.load(data)[_EMBEDDINGS]


class PromptMemory:
    """The most recently used prompts' embeddings, so that a repeated prompt needs no text encoder."""

    def __init__(self, encode: Callable[[str], tuple[torch.Tensor, ...]], *, kept: int = PROMPTS_KEPT) -> None:
        self._encode = encode
        self._most = kept
        self._kept: OrderedDict[str, tuple[torch.device, tuple[torch.Tensor, ...]]] = OrderedDict()

    def __call__(self, prompt: str) -> tuple[torch.Tensor, ...]:
        """The embeddings of a prompt, equal to those computed anew."""
        if prompt in self._kept:
            self._kept.move_to_end(prompt)
            device, kept = self._kept[prompt]
            return tuple(one.to(device) for one in kept)
        embeddings = self._encode(prompt)
        if not self._most:
            return embeddings
        self._kept[prompt] = (embeddings[0].device, tuple(one.cpu() for one in embeddings))
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return embeddings
