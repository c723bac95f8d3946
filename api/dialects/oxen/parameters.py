"""A model's own parameters, as the catalog declares them, become an edit."""

import math
from collections.abc import Mapping
from typing import Any

from storage.contracts import catalog, edits, errors
from storage.contracts.geometry import Canvas, Size

RATIOS = {
    "1:1": 1.0, "16:9": 16 / 9, "21:9": 21 / 9, "3:2": 3 / 2, "2:3": 2 / 3, "4:5": 4 / 5, "5:4": 5 / 4, "3:4": 3 / 4,
    "4:3": 4 / 3, "9:16": 9 / 16, "9:21": 9 / 21, "match_input_image": None,
}  # fmt: skip

RESOLUTIONS = {"0.5 MP": 2**19, "1 MP": None, "2 MP": 2**21}
"""In pixels; the models' preferred sizes have about one megapixel."""

FORMATS: dict[str, edits.OutputFormat] = {"webp": "webp", "jpg": "jpeg", "png": "png"}

SAME = frozenset(edits.Edit.model_fields) - {"seed", "output_format"}
"""Parameters that are an edit's fields of the same name; a seed is the submission's, formats have other names here."""

MAX_RECORDED = 500
"""Characters of a refused value that are shown again."""


def edit_of(name: str, model: catalog.Model, sent: Mapping[str, Any], *, references: int, masked: bool) -> edits.Edit:
    """The edit without its pictures, of which there are so many. Raises `errors.InvalidInputError`."""
    checked = model.validate_parameters(sent)
    negative, true_guidance = checked.get("negative_prompt"), checked.get("true_guidance", 1)
    if negative is not None and true_guidance <= 1:
        raise errors.InvalidInputError("negative_prompt needs true_guidance above 1", field="negative_prompt")
    if negative is None and true_guidance > 1:
        raise errors.InvalidInputError("true_guidance above 1 needs a negative_prompt", field="true_guidance")
    if "strength" in sent and not masked:
        raise errors.InvalidInputError("strength is for edits with a mask_image", field="strength")
    # A parameter that has the name of an edit's field is that field; the others are translated.
    same = {field: checked[field] for field in SAME if checked.get(field) is not None}
    return edits.Edit(
        **same,
        model=name,
        canvas=_canvas(model, checked, sent, has_picture=references > 0, masked=masked),
        steps=checked["num_inference_steps"],
        upsample_temperature=checked.get(catalog.UPSAMPLING) or 0.0,
        output_format=FORMATS[checked["output_format"]],
        quality=checked["output_quality"],
        filtered=not checked.get("disable_safety_checker", False),
    )


def _canvas(
    model: catalog.Model, checked: Mapping[str, Any], sent: Mapping[str, Any], *, has_picture: bool, masked: bool
) -> Canvas:
    width, height = checked.get("width"), checked.get("height")
    as_input = checked.get("exact_size", False)
    shaped = "aspect_ratio" in sent and sent["aspect_ratio"] != "match_input_image"
    if (width is None) != (height is None):
        missing = "height" if height is None else "width"
        raise errors.InvalidInputError(f"width and height belong together; {missing} is missing", field=missing)
    if shaped and (width is not None or as_input or masked):
        other = "width and height" if width is not None else "exact_size" if as_input else "mask_image"
        raise errors.InvalidInputError(f"aspect_ratio and {other} exclude each other", field="aspect_ratio")
    if as_input and (width is not None or not has_picture):
        reason = "width and height exclude it" if width is not None else "there is no input_image to take it from"
        raise errors.InvalidInputError(f"exact_size: {reason}", field="exact_size")
    pixels = RESOLUTIONS[checked.get("resolution", "1 MP")]
    if width is not None and height is not None:
        if masked:
            raise errors.InvalidInputError("With mask_image the result has the input's shape", field="width")
        if pixels is not None:
            raise errors.InvalidInputError("resolution and width and height exclude each other", field="resolution")
        size = Size(width=width, height=height)
        model.frame.check(size)
        return Canvas(size=size)
    ratio = None if as_input or masked else RATIOS[checked["aspect_ratio"]]
    return Canvas(ratio=ratio, pixels=pixels, as_input=as_input)


def recordable(model: catalog.Model, sent: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown again of refused parameters: bounded, and JSON whatever was sent."""

    def plain(value: object) -> object:
        is_plain = value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
        return value if is_plain else str(value)[:MAX_RECORDED]

    return {field: plain(value) for field, value in sent.items() if field in model.parameters}
