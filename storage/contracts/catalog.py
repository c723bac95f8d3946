"""The catalog: which models there are, where their weights come from, which parameters they take, on which GPU types.

It is data (`catalog.toml`), so that an operator adds a fine-tune without touching code. A wrong catalog stops the start
with the file's table and key in the message. The same declaration validates requests and is served as JSON schema.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from storage.contracts import errors, queue_names
from storage.contracts.geometry import Frame
from storage.contracts.gpus import GpuType
from storage.contracts.parameters import Declaration, Parameter, properties, shown
from storage.contracts.values import Frozen
from storage.contracts.weights import Memory, Profile, Weights

LORA_SCALE = "lora_scale"
"""The parameter that says how strongly a LoRA works."""

UPSAMPLING = "caption_upsample_temperature"
"""The parameter that asks for a prompt to be written anew, as diffusers calls it."""


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
    max_references: Annotated[int, Field(ge=1, le=16)] = 1
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
        if (LORA_SCALE in self.parameters) != self.weights.scalable_lora:
            raise ValueError(f"parameters.{LORA_SCALE} and weights.scalable_lora go together")
        if self.weights.scalable_lora and (self.weights.lora is None or self.profile != "exact"):
            raise ValueError("weights.scalable_lora needs weights.lora and profile exact")
        if self.weights.format != "bf16" and self.profile != "fast":
            raise ValueError(f"weights.format {self.weights.format} is no exact profile")
        if self.weights.whole_text_encoder and self.pipeline != "flux2":
            raise ValueError("weights.whole_text_encoder is for the pipeline flux2")
        if self.weights.caches_references and self.loaded_memory and not self.loaded_memory.reference_cache_kb:
            raise ValueError("weights.caches_references needs memory.reference_cache_kb")
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
        return self.model_copy(
            update={"weights": self.weights.published, "frame": self.frame.model_copy(update={"render_pixels": None})}
        )

    @functools.cached_property
    def _declaration(self) -> Declaration:
        return Declaration(self.parameters)

    def request_schema(self) -> dict[str, Any]:
        """The parameters as a JSON schema: what is served is what validates."""
        required = [name for name, parameter in self.parameters.items() if parameter.required]
        return {
            "type": "object",
            "title": "Input",
            "required": required,
            "properties": properties(self.parameters),
            "additionalProperties": False,
        }

    def validate_parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Check and complete a request's parameters.

        Returns every parameter with its value or default. Raises `errors.InvalidInputError` naming the field, its value
        and what is allowed.
        """
        return self._declaration.check(values)


class Catalog(Frozen):
    """Every model and GPU type this service knows."""

    models: dict[str, Model]
    gpu_types: dict[str, GpuType]
    regions: Annotated[tuple[Annotated[str, Field(pattern="^[a-z0-9-]{1,40}$")], ...], Field(min_length=1)] = ("local",)
    """Where workers may be."""
    text_to_image: dict[str, str] = Field(default_factory=dict)
    """Of a name under which a service makes pictures from text alone, although our model of that name needs one: the model
    that makes them here."""

    @model_validator(mode="after")
    def _text_to_image_can_be_done(self) -> "Catalog":
        for name, other in self.text_to_image.items():
            if not self.has(name):
                raise ValueError(f"text_to_image.{name}: there is no model of this name")
            if other and (other not in self.models or self.models[other].min_references):
                raise ValueError(f"text_to_image.{name}: {other!r} is no model that makes pictures from text alone")
        return self

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
        versions = self.versions(self.name_of(name))
        if version not in versions:
            message = f"model_version must be one of {', '.join(versions)} for {name}; got {shown(version)}"
            raise errors.ModelNotFoundError(message, field="model_version")
        return versions[version]

    def profiled(self, name: str, profile: str) -> str:
        """The name of the version of a model that computes so. Raises `errors.InvalidInputError` when there is none."""
        offered = self.profiles_of(name)
        if profile in offered:
            return offered[profile]
        raise errors.InvalidInputError(
            f"profile must be one of {', '.join(offered)} for {name}; got {shown(profile)}", field="profile"
        )

    def profiles_of(self, name: str) -> dict[str, str]:
        """The profiles that a model is offered in: profile to the name of its version."""
        own = self.models[self.name_of(name)]
        profiles: dict[str, str] = {own.profile: self.name_of(name)}
        for other in self.versions(self.name_of(name)).values():
            profiles.setdefault(self.models[other].profile, other)
        return dict(sorted(profiles.items()))

    @functools.cached_property
    def _names(self) -> dict[str, str]:
        return {alias.lower(): name for name, model in self.models.items() for alias in (name, *model.aliases)}

    @property
    def queues(self) -> tuple[str, ...]:
        """Every queue of edits there can be."""
        return tuple(
            queue_names.of(name, gpu_type, region)
            for name, model in self.models.items()
            for gpu_type in (*model.gpu_types, queue_names.ANY_GPU)
            for region in (*self.regions, None)
        )

    def has(self, name: str) -> bool:
        """Whether there is a model of this name or alias."""
        return name.lower() in self._names

    def name_of(self, name: str) -> str:
        """The model's own name, from that or an alias, in any case. Raises `errors.ModelNotFoundError`."""
        try:
            return self._names[name.lower()]
        except KeyError:
            known = ", ".join(self.models)
            raise errors.ModelNotFoundError(f"Model not found: {name}; there are {known}", field="model") from None

    def drawing(self, name: str) -> str | None:
        """The model that makes pictures from text alone under this name or alias, where its own model needs a picture.

        With the name of its maker before it, or without.
        """
        plain = name.lower()
        return self.text_to_image.get(plain) or self.text_to_image.get(plain.rpartition("/")[2]) or None

    def model(self, name: str) -> Model:
        """The model of this name or alias. Raises `errors.ModelNotFoundError`."""
        return self.models[self.name_of(name)]
