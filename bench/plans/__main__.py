"""`python -m bench.plans MODEL` prints the memory table of a published model for the catalog, counted from its architecture."""

import argparse
from typing import Any

from bench import architectures
from bench.plans import counting, models


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=architectures.TRANSFORMERS)
    model = parser.parse_args().model
    transformer, vae = models.transformer(model), models.autoencoder(model)
    print(f"vae = {counting.weights_gb(vae):.3f}\ntoken_kb = {token_kb(model):.1f}")
    print(f"reference_cache_kb = {reference_cache_kb(transformer):.1f} (for weights with caches_references)")
    encode, decode = picture_kb(model)
    print(f"encode_kb_per_pixel = {encode:.2f}\ndecode_kb_per_pixel = {decode:.2f}")
    encoders = list(models.text_encoders(model).values())
    large = encoders[-1]
    outside = counting.outside_gb(large) + sum(counting.weights_gb(part) for part in encoders[:-1])
    for name, part, rest in (
        ("transformer", transformer, counting.outside_gb(transformer)),
        ("text_encoder", large, outside),
    ):
        print(f"\n[{name}]\noutside = {rest:.3f}")
        for layer in counting.layers(part):
            print(f"  {layer['count']:.0f} layers of {layer['gb']:.4f} GB, {layer['quantised']:.4f} quantised")


def token_kb(model: str) -> float:
    """KB of activations for a token that the transformer sees."""
    part = models.transformer(model)
    few, many = (counting.activations_gb(part, lambda n=n: models.step(model, part, n)) for n in (4096, 8192))  # type: ignore[misc]
    return (many - few) / 4096 * 1e6


def reference_cache_kb(transformer: Any) -> float:
    """KB in bf16 of a reference token's keys and values, of all blocks."""
    blocks = transformer.config.num_layers + transformer.config.num_single_layers
    return float(blocks * 2 * transformer.inner_dim * 2 / 1e3)


def picture_kb(model: str, side: int = 512) -> tuple[float, float]:
    """KB of activations for a pixel that the autoencoder encodes, and decodes."""
    part = models.autoencoder(model)
    pixels, latents = (
        counting.meta(1, 3, side, side),
        counting.meta(1, part.config.latent_channels, side // 8, side // 8),
    )
    encoded = counting.activations_gb(part, lambda: part.encode(pixels).latent_dist.mode())
    decoded = counting.activations_gb(part, lambda: part.decode(latents, return_dict=False))
    return encoded / side**2 * 1e6, decoded / side**2 * 1e6


if __name__ == "__main__":
    main()
