"""Parameters of requests, declared as data: one declaration validates, explains and is served as JSON schema."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
    model_validator,
)

from storage.contracts import errors
from storage.contracts.values import Frozen


class Parameter(Frozen):
    """One field of a request: its type, default and allowed range, in the words of JSON schema."""

    type: Literal["string", "integer", "number", "boolean"]
    description: str
    default: str | int | float | bool | None = None
    required: bool = False
    minimum: int | float | None = None
    maximum: int | float | None = None
    exclusive_minimum: int | float | None = None
    choices: tuple[str, ...] = ()
    max_length: int | None = None

    @model_validator(mode="after")
    def _default_is_allowed(self) -> "Parameter":
        if self.default is not None:
            TypeAdapter(_annotation(self)).validate_python(self.default)
        return self


def schema_of(parameter: Parameter) -> dict[str, Any]:
    """A parameter in the words of JSON schema."""
    schema = {
        "type": parameter.type,
        "description": parameter.description,
        "default": parameter.default,
        "minimum": parameter.minimum,
        "maximum": parameter.maximum,
        "exclusiveMinimum": parameter.exclusive_minimum,
        "maxLength": parameter.max_length,
        "enum": list(parameter.choices) or None,
    }
    return {key: value for key, value in schema.items() if value is not None}


def not_blank(value: str) -> str:
    """Refuses what is nothing but white space. Raises `ValueError`."""
    if not value.strip():
        raise ValueError("blank")
    return value


def meant(name: str, known: Iterable[str]) -> str:
    """What is said of a name that is like a known one; nothing where none is."""
    near = difflib.get_close_matches(name[:80], list(known), n=1, cutoff=0.8)
    return f" (did you mean {near[0]}?)" if near else ""


def refuse_unknown(values: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raises `errors.InvalidInputError` for the first field that nobody knows, with those that are known."""
    unknown = sorted(set(values) - set(known))
    if unknown:
        name, allowed = unknown[0], sorted(known)
        message = f"{name[:80]} is not a known parameter{meant(name, allowed)}; allowed: {', '.join(allowed)}"
        raise errors.InvalidInputError(message, field=name)


Checked = TypeVar("Checked", bound=BaseModel)


def checked(
    kind: type[Checked],
    values: Mapping[str, Any],
    parameters: Mapping[str, Parameter],
    *,
    known: Iterable[str],
    textual: bool = False,
) -> Checked:
    """Values as a `kind`, completed by defaults; null is absent. `textual` values are a form's, `known` the names of all fields.

    Raises `errors.InvalidInputError` naming the field, its value and what is allowed.
    """
    sent = {name: value for name, value in values.items() if value is not None}
    refuse_unknown(sent, known)
    if textual:
        sent = {name: typed(value, parameters.get(name)) for name, value in sent.items()}
    try:
        return kind.model_validate(sent)
    except ValidationError as exc:
        raise sentence_of(exc, parameters, sent) from None


def properties(parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Parameters as the properties of a JSON schema, in their order."""
    return {
        name: {"title": name, "x-order": order, **schema_of(parameter)}
        for order, (name, parameter) in enumerate(parameters.items())
    }


class Declaration:
    """The parameters of one kind of request."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self.parameters = parameters
        # Building it takes longer than everything else about a request.
        self._checker = request_model("Parameters", parameters)

    def check(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter with its value or default. Raises as `checked`."""
        return dict(checked(self._checker, values, self.parameters, known=self.parameters))


def typed(value: Any, parameter: Parameter | None) -> Any:
    """A form's text as the type its parameter has; what does not fit stays text and is refused by name."""
    if parameter is None or not isinstance(value, str):
        return value
    if parameter.type == "boolean":
        return {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
    try:
        return {"integer": int, "number": float}.get(parameter.type, str)(value)
    except ValueError:
        return value


_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool}


def _annotation(parameter: Parameter) -> Any:
    """The type of a value, with what it is checked for."""
    annotation: Any = Literal[parameter.choices] if parameter.choices else _TYPES[parameter.type]
    constraints: dict[str, Any] = {}
    if parameter.minimum is not None:
        constraints["ge"] = parameter.minimum
    if parameter.exclusive_minimum is not None:
        constraints["gt"] = parameter.exclusive_minimum
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
        annotation = Annotated[annotation, AfterValidator(not_blank)]
    return annotation


def request_model(name: str, parameters: Mapping[str, Parameter]) -> type[BaseModel]:
    """A model that checks a request's parameters and completes them."""
    fields: dict[str, Any] = {}
    for field, parameter in parameters.items():
        annotation = _annotation(parameter)
        fields[field] = (annotation, ...) if parameter.required else (annotation | None, parameter.default)
    return create_model(name, __config__=ConfigDict(extra="forbid", hide_input_in_errors=True), **fields)


def sentence_of(
    exc: ValidationError, parameters: Mapping[str, Parameter], values: Mapping[str, Any]
) -> errors.InvalidInputError:
    """What is wrong, for the caller: field, value and what is allowed."""
    first = exc.errors(include_url=False)[0]
    field = str(first["loc"][0])
    if field not in values:
        return errors.InvalidInputError(f"{field} is required", field=field)
    value = values[field]
    parameter = parameters.get(field)
    if parameter is None:
        return errors.InvalidInputError(f"{field}: {first['msg']}; got {shown(value)}", field=field)
    if parameter.required and isinstance(value, str) and not value.strip():
        return errors.InvalidInputError(f"{field.capitalize()} cannot be empty", field=field)
    if isinstance(value, str) and parameter.max_length is not None and len(value) > parameter.max_length:
        message = f"{field} may have at most {parameter.max_length} characters; got {len(value)}"
        return errors.InvalidInputError(message, field=field)
    return errors.InvalidInputError(f"{field} must be {_allowed(parameter)}; got {shown(value)}", field=field)


OUT_OF_BOUNDS = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal"})


def sentence(error: Mapping[str, Any], constraints: Iterable[object]) -> str:
    """What pydantic found wrong; of a number with two ends, both, of which it tells the one that was passed."""
    names = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    ends = [
        f"{words} {getattr(one, end):g}" for one in constraints for end, words in names.items() if hasattr(one, end)
    ]
    if error["type"] not in OUT_OF_BOUNDS or len(ends) != 2:
        return str(error["msg"]).removeprefix("Value error, ")
    return f"must be {' and '.join(ends)}"


def _allowed(parameter: Parameter) -> str:
    if parameter.choices:
        return "one of " + ", ".join(parameter.choices)
    kind = {"string": "a string", "integer": "an integer", "number": "a finite number", "boolean": "true or false"}[
        parameter.type
    ]
    if parameter.exclusive_minimum is not None:
        return f"{kind} above {_plain(parameter.exclusive_minimum)} and at most {_plain(parameter.maximum)}"
    if parameter.minimum is not None and parameter.maximum is not None:
        return f"{kind} between {_plain(parameter.minimum)} and {_plain(parameter.maximum)}"
    return kind


def _plain(limit: float | None) -> str:
    # A seed's limit is a number to be copied, not 1.84467e+19.
    return str(limit) if isinstance(limit, int) else f"{limit:.10g}"


def shown(value: object) -> str:
    """A value for an error message, cut short."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
