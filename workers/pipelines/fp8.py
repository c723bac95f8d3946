"""Linear layers that multiply in fp8: weights in e4m3 with a scale for each output channel, activations with one for each token.

The tensor cores of Ada, Hopper and Blackwell multiply fp8 twice as fast as bf16; accumulation is in float32. It pays only where
the scaling of activations is fused with what comes before, so such a transformer is compiled (torchao's published table: fp8
without compilation is slower than bf16). torchao does the same through a tensor subclass whose kernels refuse to run on a CPU;
this runs wherever `torch._scaled_mm` does, so that the tests compute what the GPU computes.
"""

from collections.abc import Iterator

import torch

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
SMALLEST_SCALE = 1e-12
ROWS = 1024
"""Of weights that are quantised at a time."""


def _scaled(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (rows, width) as e4m3 and the float32 scale of each row (rows, 1)."""
    scale = values.abs().amax(dim=-1, keepdim=True).to(torch.float32).clamp(min=SMALLEST_SCALE) / LARGEST
    return (values.to(torch.float32) / scale).clamp(-LARGEST, LARGEST).to(E4M3), scale


class Fp8Linear(torch.nn.Module):  # type: ignore[misc]
    """In place of a `torch.nn.Linear`, with half its bytes."""

    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        with torch.no_grad():
            # In float32, once: a scale rounded to bf16 would cost the weights a bit.
            scale = linear.weight.abs().amax(dim=1, keepdim=True).float().clamp(min=SMALLEST_SCALE) / LARGEST
            weight = torch.empty_like(linear.weight, dtype=E4M3)
            # Some rows at a time: in float32 the largest take more than the plan has room for.
            for rows, to, by in zip(linear.weight.split(ROWS), weight.split(ROWS), scale.split(ROWS), strict=True):
                to.copy_((rows.float() / by).clamp(-LARGEST, LARGEST))
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.reshape(1, -1))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().to(torch.bfloat16))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Values (…, in_features) to (…, out_features), in the dtype they come in."""
        rows, scale = _scaled(values.reshape(-1, self.in_features))
        product = torch._scaled_mm(
            rows,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return product.to(values.dtype).reshape(*values.shape[:-1], self.out_features)


def linears(layer: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Linear]]:
    """What of a transformer layer is quantised: its linear layers, but those that compute modulations (`norm` in their name).

    They see a single token and cost no time, and errors in them shift every channel. Yields owner, attribute and layer.
    """
    for name, module in layer.named_modules():
        if isinstance(module, torch.nn.Linear) and "norm" not in name and _aligned(module):
            owner, _, attribute = name.rpartition(".")
            yield layer.get_submodule(owner), attribute, module


def _aligned(linear: torch.nn.Linear) -> bool:
    """Tensor cores take rows of sixteen bytes."""
    return bool(linear.in_features % 16 == 0 and linear.out_features % 16 == 0)


def quantise(layer: torch.nn.Module, device: str) -> int:
    """Quantise a layer in place on the device, linear by linear. Returns how many linear layers that were."""
    done = 0
    for owner, attribute, linear in list(linears(layer)):
        setattr(owner, attribute, Fp8Linear(linear.to(device)))
        done += 1
    return done
