"""What the small trained model is made of: exact operations, instructions, and an encoder that is computed."""

import numpy as np
import pytest
import torch

from training import autoencoder, networks
from training.operations import EVERYTHING, OPERATIONS, Operation, instruction


def test_the_computed_encoder_is_the_linear_map() -> None:
    torch.manual_seed(0)
    linear = {
        "weight": torch.randn(networks.LATENT_CHANNELS, 3, 8, 8) / 8,
        "bias": torch.randn(networks.LATENT_CHANNELS),
    }
    vae = networks.autoencoder()
    autoencoder.write_encoder(vae, linear)
    pictures = autoencoder.pixels(torch.rand(2, 3, 64, 96))
    with torch.no_grad():
        found = vae.eval().encode(pictures).latent_dist
    assert torch.allclose(found.mode(), autoencoder.encoded(pictures, linear), atol=0.02)
    assert float(found.std.max()) < 1e-3, "nothing is left to chance"


def test_what_the_map_keeps_comes_back() -> None:
    torch.manual_seed(0)
    linear = {"weight": torch.randn(networks.LATENT_CHANNELS, 3, 8, 8), "bias": torch.randn(networks.LATENT_CHANNELS)}
    kept = torch.linalg.pinv(linear["weight"].flatten(1))
    cells = (kept @ torch.rand(networks.LATENT_CHANNELS, 6)) * 0.1
    pictures = torch.nn.functional.fold(cells[None], (16, 24), 8, stride=8)
    undone = autoencoder.undone(autoencoder.encoded(pictures, linear), linear)
    assert np.abs(undone - ((pictures[0] + 1) / 2).permute(1, 2, 0).numpy()).max() < 0.01


@pytest.mark.parametrize("operation", EVERYTHING, ids=lambda operation: operation.name)
def test_an_operation_gives_a_picture_of_the_same_shape(operation: Operation) -> None:
    picture = np.random.default_rng(0).random((64, 64, 3), np.float32)
    for strength in (0.5, 1.0, 1.6):
        exact = operation.exact(picture, strength)
        assert exact.shape == picture.shape
        assert 0 <= exact.min() <= exact.max() <= 1


def test_held_out_phrasings_are_not_trained_on() -> None:
    for operation in OPERATIONS:
        assert operation.held_out
        assert not set(operation.held_out) & set(operation.phrasings), operation.name


def test_an_instruction_depends_on_its_seed_alone() -> None:
    twice = [[instruction(np.random.default_rng(4), operation).sentence for operation in OPERATIONS] for _ in range(2)]
    assert twice[0] == twice[1]
