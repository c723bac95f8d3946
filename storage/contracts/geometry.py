"""Which sizes: what a model reads, what it renders, and what comes back. Pure arithmetic on pixels.

Pipelines snap sizes silently: preferred sizes that are no fixed points of their own rounding, references cropped to a
multiple of 16. Here every size is chosen before the pipeline sees it, so that it changes none, and what was done is said.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, model_validator

from storage.contracts import errors
from storage.contracts.values import Frozen

SHORTEST_READ = 64
"""Pixels that a reference read in its own shape has on its shorter side at the least."""

SHAPE_TOLERANCE = 0.1
"""Of the logarithm of width over height: what is scaled to a size of another shape than this looks stretched."""

MULTIPLE = 16
"""Latents are an eighth of the pixels and are read two by two."""


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

    @property
    def pixels(self) -> int:
        """How many there are."""
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Canvas(Frozen):
    """The size somebody asked for.

    `size` is exact. Without it `ratio` (width over height; None is the first reference's, or 1) and `pixels` (None is the
    model's own) choose one. `as_input` gives back the first reference's own width and height, whatever was rendered.
    """

    ratio: Annotated[float, Field(gt=0)] | None = None
    pixels: Annotated[int, Field(ge=1)] | None = None
    size: Size | None = None
    as_input: bool = False


class Frame(Frozen):
    """What a model renders and reads well.

    `sizes` are those it was trained on. `reference_pixels` bounds references, which then keep their shape; None scales
    each to the preferred size nearest its ratio. Asked sizes have sides from `min_side` to `max_side` and at most
    `max_pixels`.
    """

    sizes: tuple[str, ...]
    reference_pixels: Annotated[int, Field(ge=64 * 64)] | None = None
    longest_reference: Annotated[float, Field(ge=1)] = 20
    """How many times as long as wide a reference may be."""
    in_shape: bool = False
    """The first reference is read at the result's size, what does not fit its shape cut off on both sides: for a model that
    learned results of its reference's shape alone."""
    render_pixels: Annotated[int, Field(ge=64 * 64)] | None = None
    """Asked sizes of more pixels are rendered with so many and scaled; None renders whatever may be asked."""
    min_side: Annotated[int, Field(ge=MULTIPLE)] = 256
    max_side: Annotated[int, Field(ge=MULTIPLE)] = 2048
    max_pixels: Annotated[int, Field(ge=1)] = 2_100_000

    @model_validator(mode="after")
    def _sizes_can_be_read(self) -> "Frame":
        if not self.sizes:
            raise ValueError("sizes: at least one is needed")
        for text in self.sizes:
            size = Size.parse(text)
            if size.width % MULTIPLE or size.height % MULTIPLE:
                raise ValueError(f"sizes: {text} is no multiple of {MULTIPLE}")
        return self

    @property
    def usual_pixels(self) -> int:
        """How many are rendered when nothing is asked: the preferred sizes have about as many each."""
        return Size.parse(self.sizes[len(self.sizes) // 2]).pixels

    def nearest(self, ratio: float) -> Size:
        """The preferred size whose ratio is nearest, compared on a logarithmic scale."""
        return min((Size.parse(text) for text in self.sizes), key=lambda size: abs(math.log(size.ratio / ratio)))

    def check(self, size: Size) -> None:
        """Raises `errors.InvalidInputError` naming `width` or `height` when a size is out of range."""
        for field, side in (("width", size.width), ("height", size.height)):
            if not self.min_side <= side <= self.max_side:
                message = f"{field} must be an integer between {self.min_side} and {self.max_side}; got {side}"
                raise errors.InvalidInputError(message, field=field)
        if size.pixels > self.max_pixels:
            message = f"width x height may be at most {self.max_pixels} pixels; got {size}, which is {size.pixels}"
            raise errors.InvalidInputError(message, field="width")

    def check_reference(self, size: Size) -> None:
        """Raises `errors.InvalidInputError` for a reference the model cannot read."""
        if max(size.ratio, 1 / size.ratio) > self.longest_reference:
            message = f"input_image may be at most {self.longest_reference:g} times as long as wide for this model; got {size}"
            raise errors.InvalidInputError(message, field="input_image")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Every size of one edit: each reference as the model reads it, what is rendered, what comes back, and a sentence on it."""

    references: tuple[Size, ...]
    render: Size
    output: Size
    note: str
    cut: tuple[bool, ...] = ()
    """Which references are cropped to the shape of their size; that of the others is nearly their own."""

    @property
    def cropped(self) -> bool:
        """Whether the output is the middle of what is rendered; otherwise it is scaled, unless it is the same."""
        return 0 <= self.render.width - self.output.width < MULTIPLE and (
            0 <= self.render.height - self.output.height < MULTIPLE
        )


def planned(frame: Frame, canvas: Canvas, originals: Sequence[Size], first: Size | None = None) -> Geometry:
    """The sizes of an edit, from what was asked and the pixel sizes of its references, upright.

    `first` is the picture whose shape the result may take; by default the first reference. Raises
    `errors.InvalidInputError` for a reference that is too long and thin.
    """
    for original in originals:
        frame.check_reference(original)
    first = first or (originals[0] if originals else None)
    render = output = _rendered(frame, canvas, first)
    # Several side by side are another picture than the first, and stay whole.
    cut = tuple(frame.in_shape and original == first for original in originals)
    read = (render if is_cut else _read(frame, original) for original, is_cut in zip(originals, cut, strict=True))
    if canvas.size is not None:
        output = canvas.size
    elif canvas.as_input and first is not None:
        output = first
    geometry = Geometry(references=tuple(read), render=render, output=output, note="", cut=cut)
    return replace(geometry, note=_note(geometry, originals))


def _read(frame: Frame, original: Size) -> Size:
    if frame.reference_pixels is None:
        return frame.nearest(original.ratio)
    scale = min(1.0, math.sqrt(frame.reference_pixels / original.pixels))
    scale = max(scale, SHORTEST_READ / min(original.width, original.height))
    width, height = _multiple(original.width * scale), _multiple(original.height * scale)
    if width * height > frame.reference_pixels:
        # Rounding up must not make it so large that the pipeline would scale it again.
        width, height = (
            max(SHORTEST_READ, int(side * scale) // MULTIPLE * MULTIPLE) for side in (original.width, original.height)
        )
    # Rounding the short side down may have made it too long by a few pixels.
    longest = int(frame.longest_reference)
    return Size(width=min(width, longest * height), height=min(height, longest * width))


def _rendered(frame: Frame, canvas: Canvas, first: Size | None) -> Size:
    if canvas.size is not None and frame.render_pixels and canvas.size.pixels > frame.render_pixels:
        return _shaped(canvas.size.ratio, frame.render_pixels)
    if canvas.size is not None:
        return Size(width=_multiple_above(canvas.size.width), height=_multiple_above(canvas.size.height))
    ratio = canvas.ratio or (first.ratio if first else 1.0)
    preferred = frame.nearest(ratio)
    if canvas.as_input and first is not None and frame.reference_pixels is not None:
        # The model reads the reference in its own shape; in another it would come back stretched.
        return _shaped(first.ratio, canvas.pixels or preferred.pixels)
    if canvas.pixels is None:
        return preferred
    return _shaped(preferred.ratio, min(canvas.pixels, frame.render_pixels or frame.max_pixels))


def _shaped(ratio: float, pixels: int) -> Size:
    height = math.sqrt(pixels / ratio)
    return Size(width=_multiple(height * ratio), height=_multiple(height))


def _multiple(side: float) -> int:
    return max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE)


def _multiple_above(side: int) -> int:
    return math.ceil(side / MULTIPLE) * MULTIPLE


def _note(geometry: Geometry, originals: Sequence[Size]) -> str:
    done = []
    for number, (original, read) in enumerate(zip(originals, geometry.references, strict=True), 1):
        name = "input" if len(originals) == 1 else f"input {number}"
        is_cut = geometry.cut[number - 1] and abs(math.log(original.ratio / read.ratio)) > SHAPE_TOLERANCE
        how = "cropped and scaled" if is_cut else "scaled"
        done.append(f"{name} as it is" if original == read else f"{name} {original} {how} to {read}")
    if geometry.output != geometry.render:
        how = "cropped" if geometry.cropped else "scaled"
        done.append(f"rendered at {geometry.render}, {how} to {geometry.output}")
    return "; ".join(done)
