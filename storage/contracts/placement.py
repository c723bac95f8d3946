"""Where the parts of a model go on a GPU: a sum of bytes, and the best arrangement that fits. Pure.

GB are 10^9 bytes. The order of arrangements, best first: everything on the GPU; the text encoder, used once an edit, streamed
through it block by block; the transformer kept in 8 bits (computing stays bf16); both; the transformer streamed too, with
copies behind the computing. A text encoder that writes prompts is never streamed.
Moving whole models in and out for every edit is not among them: it costs the bus 28 times the weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from storage.contracts import errors
from storage.contracts.catalog import Catalog, GpuType, Model, Precision

CONTEXT_GB = 0.7
"""What the driver and the libraries take before a model is there."""

BLOCKS_IN_FLIGHT = 2
"""One computes while the next arrives."""

FP8_SHARE = 0.515
"""8-bit weights against bf16: half, and the few layers that stay."""

Where = Literal["gpu", "streamed"]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """An arrangement, and the sum it was chosen by: GB on the GPU at the most, by part."""

    weights: Precision
    encoder: Where
    transformer: Where
    parts: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """What receipts and plans call it."""
        where = "resident"
        if self.transformer == "streamed":
            where = "streamed"
        elif self.encoder == "streamed":
            where = "resident, text encoder streamed"
        return f"{self.weights}, {where}"

    @property
    def total_gb(self) -> float:
        """The sum."""
        return round(sum(gb for _, gb in self.parts), 2)


def total_gb(together: Sequence[Placement]) -> float:
    """GB of several models on one GPU, of which one works at a time."""
    parts = [dict(placement.parts) for placement in together]
    weights = sum(sum(part.values()) - part.get("activations", 0) - part.get("context", 0) for part in parts)
    return weights + max((part.get("activations", 0) for part in parts), default=0) + CONTEXT_GB


RESIDENT = Placement(weights="bf16", encoder="gpu", transformer="gpu")


def arrangements(model: Model) -> Iterator[Placement]:
    """Every arrangement with its sum, best first, at one megapixel."""
    memory = model.memory
    if memory is None:
        yield RESIDENT
        return
    streamed = BLOCKS_IN_FLIGHT * memory.block
    activations = memory.activations + memory.activations_per_reference * memory.references
    choices: tuple[tuple[Precision, Where, Where], ...] = (
        ("bf16", "gpu", "gpu"),
        ("bf16", "streamed", "gpu"),
        ("fp8", "gpu", "gpu"),
        ("fp8", "streamed", "gpu"),
        ("bf16", "streamed", "streamed"),
    )
    if model.upsamples:
        # Streamed, every word that it writes would bring the whole encoder over the bus: minutes for a prompt.
        choices = tuple(choice for choice in choices if choice[1] == "gpu")
    for weights, encoder, transformer in choices:
        kept = memory.transformer * (FP8_SHARE if weights == "fp8" else 1)
        parts = (
            ("transformer", kept if transformer == "gpu" else streamed),
            ("text encoder", memory.text_encoder if encoder == "gpu" else streamed),
            ("vae", memory.vae),
            ("activations", activations),
            ("context", CONTEXT_GB),
        )
        yield Placement(weights=weights, encoder=encoder, transformer=transformer, parts=parts)


def planned(model: Model, gpu: GpuType, *, precision: Precision | None = None) -> Placement | None:
    """The best arrangement that fits with room for the references the catalog plans for; None when none does.

    `precision` bf16 or fp8 allows that alone; by default that of the model, or bf16 is preferred.
    """
    precision = precision or model.precision
    for placement in arrangements(model):
        if precision in (None, placement.weights) and placement.total_gb <= gpu.memory_gb:
            return placement
    return None


def refusal(
    known: Catalog, model: str, gpu_type: str, *, precision: Precision | None = None
) -> errors.ModelUnavailableError:
    """Why a model cannot run there, and the smallest GPU type that would do."""
    found = known.model(model)
    precision = precision or found.precision
    least = min(one.total_gb for one in arrangements(found) if precision in (None, one.weights))
    fitting = [
        (gpu.memory_gb, name) for name, gpu in known.gpu_types.items() if planned(found, gpu, precision=precision)
    ]
    nearest = f"the smallest that does is {min(fitting)[1]}" if fitting else "no listed GPU type does"
    has = known.gpu_types[gpu_type].memory_gb
    return errors.ModelUnavailableError(
        f"{model} needs {least:.1f} GB at the least and {gpu_type} has {has:g}; {nearest}"
    )
