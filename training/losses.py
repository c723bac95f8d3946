"""How far the text encoders are from what a batch of sentences means."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from training import networks
from training.conditioning import rows
from training.sentence_batches import SentenceBatch

SHARPNESS = 5.0
"""Of the choice between operations: the factor of the cosine. With more, vectors that are half of each of two are good enough."""
LIKELY = 0.3
"""What the teacher gives a share of this much is meant."""


def coordinates(seen: torch.Tensor) -> torch.Tensor:
    """How much of each operation is in vectors (..., width): (..., operations), 1 where there is nothing else."""
    return seen @ rows(seen.shape[-1]).T.to(seen.device) / seen.shape[-1]


def _choice(coordinates: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """How far vectors, by their coordinates (..., operations), are from choosing as `shares` does (..., operations)."""
    logits = SHARPNESS * coordinates
    return functional.cross_entropy(logits.flatten(0, -2), shares.expand(*logits.shape).flatten(0, -2))


def _indecision(coordinates: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """How far vectors are from the likely operations alone: half of each of two would cancel both. Arguments are `_choice`'s."""
    likely = (shares >= shares.amax(-1, keepdim=True).clamp(max=LIKELY)).float()
    return (coordinates - functional.normalize(likely, dim=-1)).square().sum(-1).mean()


def _everywhere(one: torch.Tensor, tokens: int) -> torch.Tensor:
    return one[:, None].expand(-1, tokens, -1)


_CHUNKS = 4
"""Sentences of like length are read together; else padding would be more than half of the work."""


def pooled(encoder: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """CLIP's pooled outputs of sentences (sentences, longest): (sentences, width)."""
    lengths = (tokens == encoder.config.eos_token_id).int().argmax(1) + 1
    order = lengths.argsort()
    read = [encoder(tokens[part, : lengths[part].max()]).pooler_output for part in order.chunk(_CHUNKS)]
    return torch.cat(read)[order.argsort()]


def loss_of(
    batch: SentenceBatch, encoders: Mapping[str, nn.Module], told_by: Callable[[Sequence[str]], torch.Tensor] | None
) -> torch.Tensor:
    """How far these encoders are from what the batch means; `told_by` gives the logits of sentences without a label."""
    told = told_by(batch.unlabelled).softmax(-1) if told_by else None
    losses = []
    for name, encoder in encoders.items():
        device = next(encoder.parameters()).device
        with networks.bf16():
            if name == "text_encoder":
                meant, seen = batch.pooled, pooled(encoder, batch.clip.to(device)).float()[:, None]
            else:
                meant, seen = batch.per_token, encoder(batch.t5.to(device)).last_hidden_state.float()
        losses.append(_loss(seen, meant.to(device), batch.operations.to(device), told))
    return torch.stack(losses).sum()


def _loss(seen: torch.Tensor, meant: torch.Tensor, shares: torch.Tensor, told: torch.Tensor | None) -> torch.Tensor:
    """How far vectors (sentences, tokens, width) are from `meant` (sentences, width) and from choosing as `shares` and `told` do.

    `shares` and `told` are (sentences, operations); the sentences of `told` come last, and have no vector that is meant.
    """
    count, tokens = len(shares), seen.shape[1]
    loss = (seen[:count] - _everywhere(meant, tokens)).square().mean()
    at = coordinates(seen)
    if told is not None:
        loss = loss + _indecision(at[count:], _everywhere(told, tokens))
        shares = torch.cat([shares, told])
    return loss + _choice(at, _everywhere(shares, tokens))
