"""A cheap look at latents: the linear map from a token to the mean colour of its sixteen by sixteen pixels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

SIDE = 256
SAMPLES = 12
PATCH = 16


@dataclass(frozen=True)
class Projection:
    """Weights (channels + 1, 3): colours from 0 to 1, the last row is the offset."""

    weights: torch.Tensor

    @classmethod
    def fitted_to(cls, tokens: Callable[[Image.Image], torch.Tensor]) -> "Projection":
        """Found by least squares on a few smooth random pictures, so that it fits whatever autoencoder is loaded."""
        rng = np.random.default_rng(0)
        seen, colours = [], []
        for number in range(SAMPLES):
            cells = 2 + number % 6
            small = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
            picture = small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            seen.append(tokens(picture).float().cpu())
            means = picture.resize((SIDE // PATCH, SIDE // PATCH), Image.Resampling.BOX)
            colours.append(torch.from_numpy(np.asarray(means, np.float32) / 255).reshape(-1, 3))
        known = _with_offset(torch.cat(seen))
        # A little of ridge: an untrained autoencoder's channels may all say the same.
        gram = known.T @ known + 1e-3 * torch.eye(known.shape[1])
        return cls(torch.linalg.solve(gram, known.T @ torch.cat(colours)))

    def picture(self, tokens: torch.Tensor, width: int, height: int) -> Image.Image:
        """Tokens (tokens, channels) of a picture of this size in pixels, as one pixel each."""
        colours = _with_offset(tokens.float().cpu()) @ self.weights
        pixels = (colours.clamp(0, 1) * 255).round().to(torch.uint8).reshape(height // PATCH, width // PATCH, 3)
        return Image.fromarray(pixels.numpy())


def _with_offset(tokens: torch.Tensor) -> torch.Tensor:
    return torch.cat([tokens, torch.ones(len(tokens), 1)], dim=1)
