"""Execution plans: how a model runs on a GPU, and the sums of bytes it was chosen by. Pure.

A plan says for the transformer and the text encoder in which format their weights are and how many of their layers are streamed:
kept in the machine's memory and copied to the GPU, layer by layer, ahead of the computing. It has a sum for each phase (load,
encode, denoise, decode) and one for host memory. GB are 10^9 bytes.

`planning` chooses one.

- `exact`: bf16 weights throughout; only rounding differs from the published pipeline. When memory is short, first the text
  encoder is streamed (it runs once an edit), then ever more layers of the transformer.
- `fast`: the transformer's linear layers multiply in fp8, or the weights come in 4 bits; and in some of many steps its output is
  extrapolated instead of computed.
"""

import math
from dataclasses import dataclass
from typing import Literal

from storage.contracts.weights import Profile, WeightFormat

CONTEXT_GB = 1.0
"""What the CUDA context, cuBLAS' workspaces and the compiled kernels take before a model is there."""

SLOTS = 2
"""Layers of a streamed part on the GPU at once: one computes while the next arrives."""

TILE_PIXELS = 512 * 512
"""Decoded at once where the autoencoder works in tiles (diffusers' default tile)."""

WORKSPACE_KB_PER_PIXEL = 0.31
"""What cuDNN's convolutions take beside the tensors that are counted while the autoencoder decodes: measured on an H200 (0.29 to
0.32 for three models)."""

HOST_GB = 6.0
"""What a worker's process takes of host memory besides streamed weights: libraries, decoded pictures, prompt embeddings."""

FP8_CAPABILITY = 8.9
"""Compute capability from which on tensor cores multiply fp8 (Ada, Hopper, Blackwell)."""

Format = WeightFormat | Literal["fp8"]

TextEncoding = Literal["here", "either", "elsewhere", "only"]
"""Where prompts are encoded: beside the transformer; by a worker of text encoders, which has the large one alone, where that
saves streaming (`either`) or in any case (`elsewhere`). `only` is such a worker."""

BYTES: dict[Format, float] = {
    "bf16": 1.0, "fp8": 0.5, "nf4": 0.28125, "q8": 0.53125, "q6": 0.4102, "q5": 0.34375, "q4": 0.28125,
}  # fmt: skip
"""A quantised weight's bytes against bf16. nf4: 4 bits, and a float32 scale for 64 weights; GGUF's by their blocks."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What an edit asks of memory: rendered pixels and reference pictures."""

    pixels: int
    references: int


@dataclass(frozen=True, kw_only=True)
class PartPlan:
    """One part's format and how many of its `layers` are streamed."""

    format: Format = "bf16"
    layers: int = 0
    streamed: int = 0

    @property
    def streamed_layers(self) -> tuple[int, ...]:
        """Which layers are streamed: spread evenly, so that copies hide behind the layers that stay."""
        return tuple(math.floor(index * self.layers / self.streamed) for index in range(self.streamed))


@dataclass(frozen=True, kw_only=True)
class Phases:
    """GB on the GPU at the most in each phase, without the context; between edits (`resting`); and of host memory (`host`)."""

    resting: float
    load: float
    encode: float
    denoise: float
    decode: float
    host: float

    @property
    def measured(self) -> dict[str, float]:
        """The sums of those phases that a worker measures with each edit."""
        return {name: round(getattr(self, name), 2) for name in ("encode", "denoise", "decode")}

    @property
    def working(self) -> float:
        """What the heaviest phase needs besides what rests."""
        return max(self.load, self.encode, self.denoise, self.decode) - self.resting


NOTHING = Phases(resting=0, load=0, encode=0, denoise=0, decode=0, host=0)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model runs on a GPU.

    `compiled` by TorchInductor, layer by layer; `tiled` decodes in tiles, which
    may show at their seams; `step_cache` leaves out some steps of the transformer; `stepped_down`: a better one ran out of
    memory. `encoding` is `here`, `elsewhere` or `only`.
    """

    profile: Profile = "exact"
    transformer: PartPlan = PartPlan()
    text_encoder: PartPlan = PartPlan()
    compiled: bool = False
    tiled: bool = False
    step_cache: bool = False
    encoding: TextEncoding = "here"
    stepped_down: bool = False
    phases: Phases = NOTHING

    @property
    def name(self) -> str:
        """What receipts and plans call it."""
        words: list[str] = [] if self.encoding == "only" else [self.transformer.format]
        if self.transformer.streamed:
            words.append(f"{self.transformer.streamed} of {self.transformer.layers} layers streamed")
        elif self.encoding != "only":
            words.append("resident")
        if self.encoding == "elsewhere":
            words.append("text encoder elsewhere")
        else:
            words += self._of_text_encoder
        if self.step_cache:
            words.append("step cache")
        if self.tiled:
            words.append("decoded in tiles")
        if self.stepped_down:
            words.append("after running out of memory")
        return ", ".join(words)

    @property
    def _of_text_encoder(self) -> list[str]:
        words = ["text encoder alone"] if self.encoding == "only" else []
        if self.text_encoder.format != "bf16":
            words.append(f"text encoder {self.text_encoder.format}")
        if self.text_encoder.streamed:
            words.append("text encoder streamed")
        return words

    @property
    def peak_gb(self) -> float:
        """The most GB on the GPU at once, the context included."""
        return round(self.phases.resting + self.phases.working + CONTEXT_GB, 2)


RESIDENT = Plan()
"""Everything on the device, nothing compiled: what a model so small needs that the catalog does not say its memory."""
