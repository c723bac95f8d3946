"""Where a model's weights are, what they are, and what they need on a GPU."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from storage.contracts.values import Frozen

Profile = Literal["exact", "fast"]
"""How a model computes: `exact` differs from the published pipeline by rounding alone; `fast` multiplies in fewer bits, within a
bound on what that changes (docs/performance.md)."""

WeightFormat = Literal["bf16", "nf4", "q8", "q6", "q5", "q4"]


class Layers(Frozen):
    """Layers of one kind: how many, and GB of bf16 weights of each; `quantised` of them may be kept in fewer bits."""

    count: Annotated[int, Field(ge=1)]
    gb: Annotated[float, Field(gt=0)]
    quantised: Annotated[float, Field(ge=0)] = 0.0


class Part(Frozen):
    """A transformer or a text encoder: its repeated layers in the order in which they run, and GB of weights `outside` them."""

    outside: Annotated[float, Field(ge=0)] = 0.0
    layers: Annotated[tuple[Layers, ...], Field(min_length=1)]
    activations: Annotated[float, Field(ge=0)] = 0.0
    """GB of a text encoder's activations for a prompt of full length."""
    stays: bool = False
    """Whether no layer is streamed. A text encoder that writes prompts would cross the bus for every word."""

    @property
    def count(self) -> int:
        """How many layers there are."""
        return sum(layer.count for layer in self.layers)


class Memory(Frozen):
    """What a model needs on a GPU: GB (10^9 bytes) of bf16 weights by part, and activations. `python -m bench.plans` counts them.

    `text_encoder` counts what is loaded of it: the layers that are read, or all. Activations are KB for each token that the
    transformer sees (text, picture, references), and for each pixel that the autoencoder encodes or decodes.
    """

    transformer: Part
    text_encoder: Part
    vae: Annotated[float, Field(gt=0)]
    pooled: Annotated[float, Field(ge=0)] = 0.0
    """GB of a second text encoder (CLIP), which `text_encoder` counts outside its layers. It stays with the transformer."""
    token_kb: Annotated[float, Field(gt=0)]
    text_tokens: Annotated[int, Field(ge=0)] = 512
    reference_tokens: Annotated[int, Field(ge=0)] = 4150
    """Of a reference picture at the most: a megapixel, a token for 256 pixels."""
    reference_cache_kb: Annotated[float, Field(ge=0)] = 0.0
    """KB of keys and values of a reference token, which weights with `caches_references` keep from the first step to the last."""
    encode_kb_per_pixel: Annotated[float, Field(gt=0)] = 1.28
    decode_kb_per_pixel: Annotated[float, Field(gt=0)] = 1.54


class Weights(Frozen):
    """Where a model's weights are, and what they are.

    `source` is a folder below the weights directory, or a repository on the hub. `lora` is the same for a LoRA merged into them.
    """

    source: str
    name: str
    revision: str | None = None
    lora: str | None = None
    scalable_lora: bool = False
    """Whether the LoRA stays apart from the weights, so that each edit says how strongly it works (`lora_scale`). Each of its
    layers then takes two small products more."""
    text_layers: tuple[int, ...] = ()
    """Which hidden states of the text encoder are read; empty is what the family's published weights have."""
    format: WeightFormat = "bf16"
    """What is kept where they come from: `nf4` are transformer and text encoder in 4 bits as bitsandbytes writes them; `q8` to
    `q4` is the transformer in a GGUF file (Q8_0, Q6_K, Q5_K, Q4_K and their like)."""
    gguf: str | None = None
    """That file: below the weights directory, or `owner/repository/path` on the hub. All other parts are `source`'s."""
    whole_text_encoder: bool = False
    """Whether what no edit reads of the text encoder is loaded too: with it prompts can be written anew (FLUX.2 [dev])."""
    caches_references: bool = False
    """Whether the transformer reads references in the first step alone and keeps what it made of them: those of a
    `Flux2KleinKVPipeline`."""
    memory: Memory | None = None
    """What these weights need where they stand in for the published ones, to which the model's own `memory` belongs."""
    note: str | None = None
    licence: str
    licence_url: str | None = None
    non_commercial: bool = False

    @model_validator(mode="after")
    def _is_of_its_file(self) -> Self:
        if (self.gguf is None) != (self.format in ("bf16", "nf4")):
            raise ValueError("weights.gguf and weights.format q8, q6, q5 or q4 go together")
        return self

    @property
    def published(self) -> Self:
        """Where these stand in for others: as those others, which may not keep their references though these do."""
        return self if self.memory is None else self.model_copy(update={"memory": None, "caches_references": False})
