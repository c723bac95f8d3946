"""What a teacher and the text encoders make of sentences together, which is right more often than what any of them makes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from training.losses import coordinates, pooled
from training.sentence_batches import Tokenizers

SURE = 10.0
"""The factor of a text encoder's coordinates in the logits of its choice."""


def read(
    encoders: Mapping[str, nn.Module], tokenizers: Tokenizers, sentences: Sequence[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The coordinates of what each encoder makes of sentences, (sentences, operations): T5's and CLIP's."""
    clip, t5 = (tokens.to(next(encoders["text_encoder"].parameters()).device) for tokens in tokenizers(sentences))
    return (
        coordinates(encoders["text_encoder_2"](t5).last_hidden_state.mean(1)),
        coordinates(pooled(encoders["text_encoder"], clip)),
    )


@dataclass(frozen=True)
class Consensus:
    """The mean of what each gives every operation."""

    teacher: Callable[[Sequence[str]], torch.Tensor]
    """Gives logits (sentences, operations)."""
    encoders: Mapping[str, nn.Module]
    """Trained before; they stay as they are."""
    tokenizers: Tokenizers

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> torch.Tensor:
        """Logits: (sentences, operations)."""
        told = self.teacher(sentences)
        seen = read(self.encoders, self.tokenizers, sentences)
        shares = [told.softmax(-1), *((SURE * one.to(told.device)).softmax(-1) for one in seen)]
        return torch.stack(shares).mean(0).log()
