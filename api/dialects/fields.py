"""Fields of a wire API, declared as pydantic models: one declaration checks, explains and is OpenAPI's request body."""

import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, WithJsonSchema
from starlette.requests import Request

from api.http import bodies
from storage.contracts import catalog, errors, parameters
from storage.contracts.parameters import Parameter

Prompt = Annotated[str, Field(max_length=10_000, description="The instruction"), AfterValidator(parameters.not_blank)]
NegativePrompt = Annotated[str, Field(max_length=10_000, description="What not to show")]
Steps = Annotated[int, Field(ge=1, le=50, description="Denoising steps")]
MAX_WIDE_SEED = 2**64 - 1
Seed = Annotated[int, Field(ge=0, le=MAX_WIDE_SEED, description="Its lowest 32 bits are used; absent: random")]
"""As interfaces for ComfyUI and others draw them; `base.seed_of` reduces it."""
UpsampleTemperature = Annotated[
    float, Field(ge=0, le=2, description="Above 0 the prompt is written anew, where the model can")
]

_URI = {"type": "string", "description": "An http(s) URL or a data URI"}
Picture = Annotated[Any, WithJsonSchema(_URI)]
"""Checked where it is read (`api.http.pictures`)."""
Pictures = Annotated[Any, WithJsonSchema({"anyOf": [_URI, {"type": "array", "items": _URI}]})]


class NoEffect:
    """Marks a field that the original has, and that changes nothing here."""


NO_EFFECT = NoEffect()


class Fields(BaseModel):
    """What a request may have. Fields without a type of their own (pictures, objects) are checked where they are read."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    FORM: ClassVar[bool] = False
    """Whether it may come as a form, too."""

    PASSES_OVER: ClassVar[bool] = False
    """Whether fields that are none of these are passed over, as the original does; else they are refused."""

    _passed_over: tuple[str, ...] = PrivateAttr(default=())

    @classmethod
    def check(cls, values: Mapping[str, Any], *, textual: bool = False) -> Self:
        """What was sent, completed by defaults; null is absent. `textual` values are a form's.

        Raises `errors.InvalidInputError` naming the field, its value and what is allowed.
        """
        passed_over = (cls.PASSES_OVER and {name for name in values if name not in cls.names()}) or set()
        known = {name: value for name, value in values.items() if name not in passed_over}
        sent = parameters.checked(cls, known, cls.parameters(), known=cls.names(), textual=textual)
        sent._passed_over = tuple(sorted(name for name in passed_over if values[name] is not None))
        return sent

    def without_effect(self, model: catalog.Model) -> tuple[str, ...]:
        """The names of what was sent and changes nothing for this model."""
        marked = [
            field.alias or name
            for name, field in type(self).model_fields.items()
            if name in self.model_fields_set and any(isinstance(one, NoEffect) for one in field.metadata)
        ]
        return (*marked, *self._passed_over)

    @classmethod
    def refuse_unknown(cls, values: Mapping[str, Any]) -> None:
        """Raises `errors.InvalidInputError` for a field that is none of these, where the others are checked one by one."""
        unknown = sorted(set(values) - cls.names())
        if unknown:
            raise errors.InvalidInputError(f"{unknown[0]} is not a known field", field=unknown[0])

    @classmethod
    @functools.cache
    def names(cls) -> frozenset[str]:
        """The names of all fields as they are sent."""
        return frozenset(field.alias or name for name, field in cls.model_fields.items())

    @classmethod
    @functools.cache
    def parameters(cls) -> Mapping[str, Parameter]:
        """Those that have a type of their own, as parameters: for sentences, for forms, and to be shown."""
        schema = cls.model_json_schema()
        required = schema.get("required", ())
        declared = {name: _parameter(part, name in required) for name, part in schema["properties"].items()}
        return {name: parameter for name, parameter in declared.items() if parameter is not None}

    @classmethod
    def properties(cls) -> dict[str, Any]:
        """The same as the properties of a JSON schema, in the order of declaration."""
        return parameters.properties(cls.parameters())

    @classmethod
    def body(cls) -> dict[str, Any]:
        """OpenAPI's `requestBody`, for a route's `openapi_extra`."""
        return body(cls.model_json_schema(), form=cls.FORM)


def body(schema: Mapping[str, Any], *, form: bool = False) -> dict[str, Any]:
    """OpenAPI's `requestBody` of a schema."""
    kinds = ("application/json", "multipart/form-data") if form else ("application/json",)
    return {"requestBody": {"required": True, "content": {kind: {"schema": dict(schema)} for kind in kinds}}}


def _parameter(schema: Mapping[str, Any], required: bool) -> Parameter | None:
    """A property as a parameter; None when it is a picture or an object."""
    if "anyOf" in schema:
        one, *others = [part for part in schema["anyOf"] if part.get("type") != "null"]
        if others:
            return None
        schema = {**schema, **one}
    if (
        schema.get("type") not in ("string", "integer", "number", "boolean")
        or schema.get("description") == _URI["description"]
    ):
        return None
    choices = schema.get("enum") or ((schema["const"],) if "const" in schema else ())
    return Parameter(
        type=schema["type"],
        description=schema.get("description", ""),
        default=schema.get("default"),
        required=required,
        minimum=schema.get("minimum"),
        maximum=schema.get("maximum"),
        exclusive_minimum=schema.get("exclusiveMinimum"),
        choices=tuple(choices),
        max_length=schema.get("maxLength"),
    )


V = TypeVar("V", bound=BaseModel)


async def of_body(request: Request, kind: type[V]) -> V:
    """A JSON body, or none, as a value whose fields may be lists. Raises as `validated`."""
    return validated(kind, (await bodies.read(request)).fields if await request.body() else {})


def validated(kind: type[V], values: Mapping[str, Any]) -> V:
    """What was sent, as a value whose fields may be lists. Raises `errors.InvalidInputError` naming the field.

    Not left to the framework, which would read and parse a body before anybody is known to have sent it.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "body"
        shown = parameters.shown(first.get("input"))
        declared = kind.model_fields.get(field)
        sentence = parameters.sentence(first, declared.metadata if declared else ())
        raise errors.InvalidInputError(f"{field}: {sentence}; got {shown}", field=field) from None
