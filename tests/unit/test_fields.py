"""A dialect's fields are declared once: that declaration checks, explains in a sentence, reads forms and is OpenAPI's body."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from api.dialects import fields
from storage.contracts import errors


class Sent(fields.Fields):
    prompt: fields.Prompt
    image: fields.Pictures = None
    steps: fields.Steps | None = None
    scale: Annotated[float, Field(gt=1, le=9, description="Guidance")] = 3.5
    format_: Annotated[Literal["png", "jpeg"], Field(description="Format")] = Field(default="png", alias="format")
    fast: Annotated[bool, Field(description="Speed")] = False


def test_what_is_not_sent_has_its_default_and_null_is_not_sent() -> None:
    sent = Sent.check({"prompt": "x", "steps": None, "format": None})
    assert (sent.steps, sent.scale, sent.format_, sent.fast) == (None, 3.5, "png", False)


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({}, "prompt", "prompt is required"),
        ({"prompt": " "}, "prompt", "Prompt cannot be empty"),
        ({"prompt": "x" * 10_001}, "prompt", "prompt may have at most 10000 characters; got 10001"),
        ({"steps": 51}, "steps", "steps must be an integer between 1 and 50; got 51"),
        ({"steps": 1.0}, "steps", "steps must be an integer between 1 and 50; got 1.0"),
        ({"steps": True}, "steps", "steps must be an integer between 1 and 50; got True"),
        ({"scale": 1}, "scale", "scale must be a finite number above 1 and at most 9; got 1"),
        ({"scale": float("nan")}, "scale", "scale must be a finite number above 1 and at most 9; got nan"),
        ({"format": "gif"}, "format", "format must be one of png, jpeg; got 'gif'"),
        ({"fast": 1}, "fast", "fast must be true or false; got 1"),
        ({"more": 1}, "more", "more is not a known parameter; allowed: fast, format, image, prompt, scale, steps"),
    ],
)
def test_what_is_wrong_is_a_sentence_with_the_field_and_what_is_allowed(
    values: dict[str, Any], field: str, sentence: str
) -> None:
    with pytest.raises(errors.InvalidInputError) as caught:
        Sent.check({"prompt": "x", **values} if values else {})
    assert (caught.value.field, caught.value.message) == (field, sentence)


def test_a_form_has_text_that_is_read_by_the_fields_types() -> None:
    sent = Sent.check({"prompt": "7", "steps": "4", "scale": "2.5", "fast": "true"}, textual=True)
    assert (sent.prompt, sent.steps, sent.scale, sent.fast) == ("7", 4, 2.5, True)
    with pytest.raises(errors.InvalidInputError, match="steps must be an integer"):
        Sent.check({"prompt": "x", "steps": "four"}, textual=True)


def test_pictures_are_in_openapi_and_are_no_parameters() -> None:
    schema = Sent.body()["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"prompt", "image", "steps", "scale", "format", "fast"}
    assert "image" not in Sent.properties()
    assert Sent.properties()["steps"] == {
        "title": "steps", "x-order": 1, "type": "integer", "description": "Denoising steps", "minimum": 1, "maximum": 50,
    }  # fmt: skip
