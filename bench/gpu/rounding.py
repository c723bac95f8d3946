"""`python -m bench.gpu.rounding MODEL DOUBLE SINGLE`: how far bf16 and fp8 are from float32, on a CPU.

One denoising step of a transformer of published width with so many layers of each kind and random weights: bf16's own distance
from float32 is what fp8's is to be compared with. FLUX.2 [dev] with 1 and 5 layers takes 17 GB of memory and three minutes.
"""

import argparse
from unittest import mock

import torch

from bench import architectures
from bench.gpu import building, measuring
from bench.plans import models
from workers.pipelines import execution, fp8

TOKENS = 128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=architectures.TRANSFORMERS)
    parser.add_argument("double", type=int)
    parser.add_argument("single", type=int)
    asked = parser.parse_args()
    few = {"num_layers": asked.double, "num_single_layers": asked.single}
    with mock.patch.dict(architectures.TRANSFORMERS, {asked.model: {**architectures.TRANSFORMERS[asked.model], **few}}):
        torch.manual_seed(0)
        transformer = models.transformer(asked.model, building.random("cpu", torch.bfloat16))

        def step(dtype: torch.dtype) -> torch.Tensor:
            return measuring.step_output(asked.model, transformer, "cpu", dtype, TOKENS)

        bf16 = step(torch.bfloat16)
        transformer.float()
        exact = step(torch.float32)
        transformer.bfloat16()
        for stack in execution.stacks(transformer):
            for layer in stack:
                fp8.quantise(layer, "cpu")
        quantised = step(torch.bfloat16)
    for name, found, expected in (
        ("bf16 from float32", bf16, exact),
        ("fp8 from float32", quantised, exact),
        ("fp8 from bf16", quantised, bf16),
    ):
        print(f"{name}: {measuring.relative_error(found, expected):.3f}")


if __name__ == "__main__":
    main()
