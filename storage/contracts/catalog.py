"""The catalog: which models there are, where their weights come from, which parameters they take, on which GPU types.

It is data (`catalog.toml`), so that an operator adds a fine-tune without touching code. A wrong catalog stops the start
with the file's table and key in the message. The same declaration validates requests and is served as JSON schema.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from storage.contracts import errors
from storage.contracts.geometry import Frame
from storage.contracts.parameters import Declaration, Parameter, shown
from storage.contracts.values import Frozen

Profile = Literal["exact", "fast"]
"""How a model computes: `exact` differs from the published pipeline by rounding alone; `fast` multiplies in fewer bits, within a
bound on what that changes (docs/performance.md)."""

UPSAMPLING = "caption_upsample_temperature"
"""The parameter that asks for a prompt to be written anew, as diffusers calls it."""


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
    token_kb: Annotated[float, Field(gt=0)]
    text_tokens: Annotated[int, Field(ge=0)] = 512
    reference_tokens: Annotated[int, Field(ge=0)] = 4150
    """Of a reference picture at the most: a megapixel, a token for 256 pixels."""
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
    text_layers: tuple[int, ...] = ()
    """Which hidden states of the text encoder are read; empty is what the family's published weights have."""
    format: WeightFormat = "bf16"
    """What is kept where they come from: `nf4` are transformer and text encoder in 4 bits as bitsandbytes writes them; `q8` to
    `q4` is the transformer in a GGUF file (Q8_0, Q6_K, Q5_K, Q4_K and their like)."""
    gguf: str | None = None
    """That file: below the weights directory, or `owner/repository/path` on the hub. All other parts are `source`'s."""
    whole_text_encoder: bool = False
    """Whether what no edit reads of the text encoder is loaded too: with it prompts can be written anew (FLUX.2 [dev])."""
    memory: Memory | None = None
    """What these weights need where they stand in for the published ones, to which the model's own `memory` belongs."""
    note: str | None = None
    licence: str
    licence_url: str | None = None
    non_commercial: bool = False


class Model(Frozen):
    """A diffusion model the service offers, with the parameters of the native API."""

    display_name: str
    summary: str
    developer: str
    aliases: tuple[str, ...] = ()
    """Other names: those that the hub and the services we stand in for use."""
    version: str = "default"
    """What this entry is called among the versions of its model."""
    version_of: str | None = None
    """The model of which this is another version; what it does not say itself is as there."""
    profile: Profile = "exact"
    """How it computes. Another profile of a model is a version of it."""
    pipeline: Literal["kontext", "flux2", "klein", "stand_in"]
    weights: Weights
    gpu_types: tuple[str, ...]
    memory: Memory | None = None
    """Of the published weights. None: so small that it fits everywhere."""
    min_references: Annotated[int, Field(ge=0)] = 1
    """With 0 it also makes pictures from text alone."""
    max_references: Annotated[int, Field(ge=1)] = 1
    stitches: bool = False
    """Whether it reads one picture, and several are put side by side into one."""
    takes_mask: bool = False
    frame: Frame
    released_at: str
    price_per_image: Annotated[float, Field(ge=0)] = 0.0
    price_per_megapixel: Annotated[float, Field(ge=0)] = 0.0
    """In USD. With neither, callers pay for the GPU's seconds."""
    parameters: dict[str, Parameter]

    @model_validator(mode="after")
    def _upsamples_as_it_says(self) -> "Model":
        if (UPSAMPLING in self.parameters) != self.weights.whole_text_encoder:
            raise ValueError(f"parameters.{UPSAMPLING} and weights.whole_text_encoder go together")
        if self.weights.whole_text_encoder and self.loaded_memory and not self.loaded_memory.text_encoder.stays:
            raise ValueError("weights.whole_text_encoder needs memory.text_encoder.stays = true")
        if self.weights.format != "bf16" and self.profile != "fast":
            raise ValueError(f"weights.format {self.weights.format} is no exact profile")
        if (self.weights.gguf is None) != (self.weights.format in ("bf16", "nf4")):
            raise ValueError("weights.gguf and weights.format q8, q6, q5 or q4 go together")
        if self.weights.whole_text_encoder and self.pipeline != "flux2":
            raise ValueError("weights.whole_text_encoder is for the pipeline flux2")
        return self

    @property
    def family(self) -> str:
        """Which family it is of: its pipeline's. What differs by family is a table keyed by this."""
        return self.pipeline

    @property
    def usual_steps(self) -> int:
        """Denoising steps of an edit that names none."""
        return int(self.parameters["num_inference_steps"].default or 1)

    def guidance(self, named: float | None) -> float:
        """The guidance scale of an edit that names this one, or none: then the model's own; 1 where it takes none."""
        if named is not None:
            return named
        own = self.parameters.get("guidance")
        return float(own.default or 0) if own else 1.0

    @property
    def upsamples(self) -> bool:
        """Whether it can write prompts anew in more words."""
        return UPSAMPLING in self.parameters

    @property
    def loaded_memory(self) -> Memory | None:
        """What the weights that are really loaded need."""
        return self.weights.memory or self.memory

    @property
    def published(self) -> "Model":
        """The same with the published weights, where others stand in for them."""
        weights = self.weights.model_copy(update={"memory": None})
        return self.model_copy(
            update={"weights": weights, "frame": self.frame.model_copy(update={"render_pixels": None})}
        )

    @functools.cached_property
    def _declaration(self) -> Declaration:
        return Declaration(self.parameters)

    def request_schema(self) -> dict[str, Any]:
        """The parameters as a JSON schema: what is served is what validates."""
        properties = self._declaration.schema()
        required = [name for name, parameter in self.parameters.items() if parameter.required]
        return {
            "type": "object",
            "title": "Input",
            "required": required,
            "properties": properties,
            "additionalProperties": False,
        }

    def validate_parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Check and complete a request's parameters.

        Returns every parameter with its value or default. Raises `errors.InvalidInputError` naming the field, its value
        and what is allowed.
        """
        return self._declaration.check(values)


class GpuType(Frozen):
    """A kind of device that workers run on."""

    display_name: str
    memory_gb: Annotated[float, Field(gt=0)]
    """Usable memory in GB (10^9 bytes)."""
    device_name: str = ""
    """What the driver calls it, a maker's prefix and a memory size aside; a worker that finds another device does not start.
    Empty: any will do."""
    capability: Annotated[float, Field(gt=0)] | None = None
    """CUDA's compute capability, such as 9.0; None: not a CUDA device, nothing is compiled for it."""
    price_per_hour: Annotated[float, Field(ge=0)] = 0.0
    """What an operator pays, in USD."""


class Catalog(Frozen):
    """Every model and GPU type this service knows."""

    models: dict[str, Model]
    gpu_types: dict[str, GpuType]
    regions: Annotated[tuple[Annotated[str, Field(pattern="^[a-z0-9-]{1,40}$")], ...], Field(min_length=1)] = ("local",)
    """Where workers may be."""

    @model_validator(mode="after")
    def _gpu_types_exist(self) -> "Catalog":
        for name, model in self.models.items():
            for gpu_type in model.gpu_types:
                if gpu_type not in self.gpu_types:
                    raise ValueError(f"models.{name}.gpu_types: {gpu_type!r} is not in gpu_types")
        return self

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "Catalog":
        taken = {name.lower(): name for name in self.models}
        for name, model in self.models.items():
            for alias in model.aliases:
                if taken.setdefault(alias.lower(), name) != name:
                    raise ValueError(f"models.{name}.aliases: {alias!r} already means {taken[alias.lower()]}")
        return self

    @model_validator(mode="after")
    def _versions_are_distinct(self) -> "Catalog":
        for name, model in self.models.items():
            if model.version_of is not None and len(self.versions(name)) < len(self._family(name)):
                raise ValueError(f"models.{name}.version: {model.version!r} is taken by another of {model.version_of}")
        return self

    def _family(self, name: str) -> list[str]:
        head = self.models[name].version_of or name
        return [head, *(other for other, model in self.models.items() if model.version_of == head)]

    def versions(self, name: str) -> dict[str, str]:
        """Every version of a model, or of the model that this is a version of: version to name."""
        return {self.models[one].version: one for one in self._family(name)}

    def version(self, name: str, version: str) -> str:
        """The name of a model's version. Raises `errors.ModelNotFoundError`."""
        found = self.versions(self.name_of(name))
        if version not in found:
            message = f"model_version must be one of {', '.join(found)} for {name}; got {shown(version)}"
            raise errors.ModelNotFoundError(message, field="model_version")
        return found[version]

    def profiled(self, name: str, profile: str) -> str:
        """The name of the version of a model that computes so. Raises `errors.InvalidInputError` when there is none."""
        found = self.profiles_of(name)
        if profile in found:
            return found[profile]
        raise errors.InvalidInputError(
            f"profile must be one of {', '.join(found)} for {name}; got {shown(profile)}", field="profile"
        )

    def profiles_of(self, name: str) -> dict[str, str]:
        """The profiles that a model is offered in: profile to the name of its version."""
        own = self.models[self.name_of(name)]
        found: dict[str, str] = {own.profile: self.name_of(name)}
        for other in self.versions(self.name_of(name)).values():
            found.setdefault(self.models[other].profile, other)
        return dict(sorted(found.items()))

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        return {alias.lower(): name for name, model in self.models.items() for alias in (name, *model.aliases)}

    def name_of(self, name: str) -> str:
        """The model's own name, from that or an alias, in any case. Raises `errors.ModelNotFoundError`."""
        try:
            return self._names[name.lower()]
        except KeyError:
            known = ", ".join(self.models)
            raise errors.ModelNotFoundError(f"Model not found: {name}; there are {known}", field="model") from None

    def model(self, name: str) -> Model:
        """The model of this name or alias. Raises `errors.ModelNotFoundError`."""
        return self.models[self.name_of(name)]


def merge(tables: Iterable[Mapping[str, Any]]) -> Catalog:
    """Build the catalog from parsed TOML tables; a later one overrides single keys of an earlier one.

    A model with `extends = "<name>"`, or `version_of`, has everything of that model that it does not say itself: a fine-tune
    names its weights and is done. Raises `ValueError` naming table and key.
    """
    merged: dict[str, Any] = {}
    for table in tables:
        merged = _overlay(merged, table)
    models = merged.get("models", {})
    merged["models"] = {name: _extended(name, models) for name in models}
    try:
        return Catalog.model_validate(merged)
    except ValidationError as exc:
        first = exc.errors()[0]
        raise ValueError(f"catalog: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from exc


def _extended(name: str, models: Mapping[str, Any]) -> dict[str, Any]:
    own = dict(models[name])
    base = own.pop("extends", own.get("version_of"))
    if base is None:
        return own
    if base not in models or {"extends", "version_of"} & set(models[base]):
        raise ValueError(f"catalog: models.{name}.extends: {base!r} is no model that stands by itself")
    # A fine-tune is like its base, but not the same: names are not inherited.
    return _overlay({key: value for key, value in models[base].items() if key not in ("aliases", "version")}, own)


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = _overlay(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return result
