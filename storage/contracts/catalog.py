"""The catalog: which models there are, where their weights come from, which parameters they take, on which GPU types.

It is data (`catalog.toml`), so that an operator adds a fine-tune without touching code. A wrong catalog stops the start
with the file's table and key in the message. The same declaration validates requests and is served as JSON schema.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from storage.contracts import errors


class Frozen(BaseModel):
    """A value that never changes once made and refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Size(Frozen):
    """A picture's width and height in pixels."""

    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]

    @classmethod
    def parse(cls, text: str) -> "Size":
        """Read `1024x768`."""
        width, _, height = text.partition("x")
        return cls(width=int(width), height=int(height))

    @property
    def ratio(self) -> float:
        """Width over height."""
        return self.width / self.height


class Parameter(Frozen):
    """One field of a request: its type, default and allowed range, in the words of JSON schema."""

    type: Literal["string", "integer", "number", "boolean"]
    description: str
    default: str | int | float | bool | None = None
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    max_length: int | None = None

    @model_validator(mode="after")
    def _default_is_allowed(self) -> "Parameter":
        if self.default is not None:
            _request_model("default", {"default": self})(default=self.default)
        return self


class Weights(Frozen):
    """Where a model's weights are, and what they are."""

    source: Annotated[str, Field(description="A folder below the weights directory, or a repository on the hub")]
    name: str
    revision: str | None = None
    note: str | None = None
    licence: str


class Model(Frozen):
    """A diffusion model the service offers, with the parameters of the native API."""

    display_name: str
    summary: str
    developer: str
    pipeline: Literal["kontext", "stand_in"]
    weights: Weights
    gpu_types: tuple[str, ...]
    max_references: Annotated[int, Field(ge=1)] = 1
    sizes: tuple[str, ...]
    released_at: str
    price_per_image: float = 0.0
    parameters: dict[str, Parameter]

    @model_validator(mode="after")
    def _sizes_can_be_read(self) -> "Model":
        if not self.sizes:
            raise ValueError("sizes: at least one is needed")
        for text in self.sizes:
            Size.parse(text)
        return self

    def nearest_size(self, ratio: float) -> Size:
        """The preferred size whose aspect ratio (width / height) is nearest, compared on a logarithmic scale."""
        return min((Size.parse(s) for s in self.sizes), key=lambda size: abs(math.log(size.ratio / ratio)))

    @functools.cached_property
    def _checker(self) -> type[BaseModel]:
        # Building it takes longer than everything else about a request.
        return _request_model("Parameters", self.parameters)

    def request_schema(self) -> dict[str, Any]:
        """The parameters as a JSON schema: what is served is what validates."""
        properties = {
            name: {"title": name, "x-order": order, **_schema(parameter)}
            for order, (name, parameter) in enumerate(self.parameters.items())
        }
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
        values = {name: value for name, value in values.items() if value is not None}
        unknown = sorted(set(values) - set(self.parameters))
        if unknown:
            allowed = ", ".join(sorted(self.parameters))
            raise errors.InvalidInputError(
                f"{unknown[0]} is not a known parameter; allowed: {allowed}", field=unknown[0]
            )
        try:
            checked = self._checker(**values)
        except ValidationError as exc:
            raise _sentence(exc, self.parameters, values) from None
        return dict(checked)


class GpuType(Frozen):
    """A kind of device that workers run on."""

    display_name: str
    memory_gb: Annotated[float, Field(gt=0)]


class Catalog(Frozen):
    """Every model and GPU type this service knows."""

    models: dict[str, Model]
    gpu_types: dict[str, GpuType]

    @model_validator(mode="after")
    def _gpu_types_exist(self) -> "Catalog":
        for name, model in self.models.items():
            for gpu_type in model.gpu_types:
                if gpu_type not in self.gpu_types:
                    raise ValueError(f"models.{name}.gpu_types: {gpu_type!r} is not in gpu_types")
        return self

    def model(self, name: str) -> Model:
        """The model of this name. Raises `errors.ModelNotFoundError`."""
        try:
            return self.models[name]
        except KeyError:
            raise errors.ModelNotFoundError(f"Model not found: {name}", field="model") from None


def merge(tables: Iterable[Mapping[str, Any]]) -> Catalog:
    """Build the catalog from parsed TOML tables; a later one overrides single keys of an earlier one.

    A model with `extends = "<name>"` has everything of that model that it does not say itself: a fine-tune names its
    weights and is done. Raises `ValueError` naming table and key.
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
    base = own.pop("extends", None)
    if base is None:
        return own
    if base not in models or "extends" in models[base]:
        raise ValueError(f"catalog: models.{name}.extends: {base!r} is no model that stands by itself")
    return _overlay(models[base], own)


def _overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = _overlay(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return result


def _schema(parameter: Parameter) -> dict[str, Any]:
    schema = {
        "type": parameter.type,
        "description": parameter.description,
        "default": parameter.default,
        "minimum": parameter.minimum,
        "maximum": parameter.maximum,
        "maxLength": parameter.max_length,
        "enum": list(parameter.choices) or None,
    }
    return {key: value for key, value in schema.items() if value is not None}


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("blank")
    return value


_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool}


def _request_model(name: str, parameters: Mapping[str, Parameter]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for field, parameter in parameters.items():
        annotation: Any = Literal[parameter.choices] if parameter.choices else _TYPES[parameter.type]
        constraints: dict[str, Any] = {}
        if parameter.minimum is not None:
            constraints["ge"] = parameter.minimum
        if parameter.maximum is not None:
            constraints["le"] = parameter.maximum
        if parameter.max_length is not None:
            constraints["max_length"] = parameter.max_length
        if parameter.type == "number":
            constraints["allow_inf_nan"] = False
        if not parameter.choices:
            # "28" is no integer and true is no number: JSON has types, and a form's text was converted before.
            constraints["strict"] = True
        annotation = Annotated[annotation, Field(**constraints)]
        if parameter.required and parameter.type == "string":
            annotation = Annotated[annotation, AfterValidator(_not_blank)]
        fields[field] = (annotation, ...) if parameter.required else (annotation | None, parameter.default)
    return create_model(name, __config__=ConfigDict(extra="forbid", hide_input_in_errors=True), **fields)


def _sentence(
    exc: ValidationError, parameters: Mapping[str, Parameter], values: Mapping[str, Any]
) -> errors.InvalidInputError:
    field = str(exc.errors()[0]["loc"][0])
    parameter = parameters[field]
    if field not in values:
        return errors.InvalidInputError(f"{field} is required", field=field)
    value = values[field]
    if parameter.required and isinstance(value, str) and not value.strip():
        return errors.InvalidInputError(f"{field.capitalize()} cannot be empty", field=field)
    if isinstance(value, str) and parameter.max_length is not None and len(value) > parameter.max_length:
        message = f"{field} may have at most {parameter.max_length} characters; got {len(value)}"
        return errors.InvalidInputError(message, field=field)
    return errors.InvalidInputError(f"{field} must be {_allowed(parameter)}; got {shown(value)}", field=field)


def _allowed(parameter: Parameter) -> str:
    if parameter.choices:
        return "one of " + ", ".join(parameter.choices)
    kind = {"string": "a string", "integer": "an integer", "number": "a finite number", "boolean": "true or false"}[
        parameter.type
    ]
    if parameter.minimum is not None and parameter.maximum is not None:
        # Ten digits: a seed's limit is a number to be copied, not 4.29497e+09.
        return f"{kind} between {parameter.minimum:.10g} and {parameter.maximum:.10g}"
    return kind


def shown(value: object) -> str:
    """A value for an error message, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
