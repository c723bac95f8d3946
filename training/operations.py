"""The edits `kontext-mini` learns: each an exact operation on pixels, with the ways people ask for it.

`{it}` in a phrasing stands for the picture, `{much}` for a word of strength. Phrasings in `held_out` are never trained on.
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from training.pictures import Picture, as_array, as_image

Apply = Callable[[Picture, float], Picture]
"""Picture and strength (1 is plain) to picture, same shape. Values may leave 0 to 1; `Operation.exact` clips."""

SUBJECTS = ("it", "the picture", "this picture", "the photo", "this photo", "the image", "this image", "the photograph")
STRENGTHS = {"": 1.0, "slightly ": 0.5, "a little ": 0.5, "a bit ": 0.5, "much ": 1.6, "a lot ": 1.6}
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked for."""

    name: str
    apply: Apply
    phrasings: tuple[str, ...]
    held_out: tuple[str, ...]
    tonal: bool = False
    """Whether it changes colour or tone and leaves every pixel in its place."""
    vouched: bool = True
    """Whether it is done well enough to be promised: nearest to the right operation, tones right to 22 dB."""
    learned: bool = True
    """Whether it is trained. What moves pixels far was not learned in the time there was; its words stay in the vocabulary."""

    def exact(self, picture: Picture, strength: float = 1.0) -> Picture:
        """The result that is asked for."""
        return self.apply(picture, strength).astype(np.float32).clip(0, 1)


@dataclass(frozen=True)
class Instruction:
    """A sentence and what it asks for."""

    operation: Operation
    sentence: str
    strength: float


def instruction(rng: np.random.Generator, operation: Operation, *, held_out: bool = False) -> Instruction:
    """One way of asking for an operation."""
    templates = operation.held_out if held_out else operation.phrasings
    template = templates[rng.integers(len(templates))]
    much = ""
    if "{much}" in template and rng.random() < 0.5:
        much = list(STRENGTHS)[rng.integers(1, len(STRENGTHS))]
    sentence = template.format(it=SUBJECTS[rng.integers(len(SUBJECTS))], much=much)
    return Instruction(operation, _spoken(rng, sentence), STRENGTHS[much])


def _spoken(rng: np.random.Generator, sentence: str) -> str:
    """With the small differences between people who type."""
    if rng.random() < 0.1:
        sentence = "please " + sentence
    if rng.random() < 0.5:
        sentence = sentence[0].upper() + sentence[1:]
    if rng.random() < 0.3:
        sentence += "." if rng.random() < 0.8 else "!"
    return sentence


def _grey(picture: Picture) -> Picture:
    return np.repeat((picture @ LUMA)[..., None], 3, axis=2)


def _sepia(picture: Picture, strength: float) -> Picture:
    return _grey(picture) * np.array([1.07, 0.87, 0.63], np.float32) + np.array([0.05, 0.03, 0.01], np.float32)


def _scaled(*factors: float) -> Apply:
    exponents = np.array(factors, np.float32)
    return lambda picture, strength: picture * exponents**strength


def _gamma(exponent: float) -> Apply:
    return lambda picture, strength: picture ** np.float32(exponent**strength)


def _contrasted(factor: float) -> Apply:
    return lambda picture, strength: (picture - 0.5) * factor**strength + 0.5


def _saturated(factor: float) -> Apply:
    return lambda picture, strength: _grey(picture) + (picture - _grey(picture)) * factor**strength


def _blurred(picture: Picture, strength: float) -> Picture:
    return as_array(as_image(picture).filter(ImageFilter.GaussianBlur(2.5 * strength)))


def _sharpened(picture: Picture, strength: float) -> Picture:
    soft = as_array(as_image(picture).filter(ImageFilter.GaussianBlur(1.5)))
    return picture + (picture - soft) * 2 * strength


def _posterised(picture: Picture, strength: float) -> Picture:
    return np.floor(picture.clip(0, 0.999) * 3) / 2


def _pixelated(picture: Picture, strength: float) -> Picture:
    height, width = picture.shape[:2]
    small = as_image(picture).resize((width // 8, height // 8), Image.Resampling.BOX)
    return as_array(small.resize((width, height), Image.Resampling.NEAREST))


def _sketched(picture: Picture, strength: float) -> Picture:
    grey = _grey(picture)
    soft = as_array(as_image(1 - grey).filter(ImageFilter.GaussianBlur(3)))
    return grey / np.maximum(1 - soft, 0.02) * 1.3 - 0.3


def _vignetted(picture: Picture, strength: float) -> Picture:
    height, width = picture.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return picture * (1 - 0.85 * np.clip((x**2 + y**2) / 2, 0, 1) ** 0.8)[..., None]


def _tinted(colour: tuple[float, float, float]) -> Apply:
    ink = np.array(colour, np.float32)
    return lambda picture, strength: _grey(picture) * 0.75 * ink + picture * 0.1 + 0.15 * ink


def _bordered(colour: tuple[float, float, float]) -> Apply:
    def apply(picture: Picture, strength: float) -> Picture:
        framed = np.empty_like(picture)
        framed[:] = np.array(colour, np.float32)
        framed[8:-8, 8:-8] = picture[8:-8, 8:-8]
        return framed

    return apply


COLOURS = {
    "red": (1.0, 0.15, 0.15),
    "green": (0.1, 0.8, 0.2),
    "blue": (0.15, 0.3, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "purple": (0.6, 0.15, 0.8),
    "orange": (1.0, 0.55, 0.1),
}
BORDERS = {**COLOURS, "white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}


PHRASINGS: dict[str, dict[str, list[str]]] = tomllib.loads((Path(__file__).parent / "phrasings.toml").read_text())


def _operation(
    name: str,
    apply: Apply,
    *,
    colour: str | None = None,
    tonal: bool = False,
    vouched: bool = True,
    learned: bool = True,
) -> Operation:
    found = PHRASINGS[name]
    trained, held_out = (
        tuple(text.replace("{colour}", colour or "") for text in found[kind]) for kind in ("trained", "held_out")
    )
    full = f"{name} {colour}" if colour else name
    return Operation(full, apply, trained, held_out, tonal, vouched and learned, learned)


EVERYTHING = (
    _operation("nothing", lambda picture, strength: picture, tonal=True),
    _operation("black and white", lambda picture, strength: _grey(picture), tonal=True),
    _operation("sepia", _sepia, tonal=True),
    _operation("invert", lambda picture, strength: 1 - picture, tonal=True, vouched=False),
    _operation("warmer", _scaled(1.3, 1.0, 0.65), tonal=True),
    _operation("cooler", _scaled(0.65, 0.95, 1.35), tonal=True),
    _operation("brighter", _gamma(0.5), tonal=True),
    _operation("darker", _gamma(2.0), tonal=True),
    _operation("more contrast", _contrasted(1.8), tonal=True),
    _operation("less contrast", _contrasted(0.45), tonal=True),
    _operation("more saturated", _saturated(2.2), tonal=True, vouched=False),
    _operation("blur", _blurred),
    _operation("sharpen", _sharpened, vouched=False),
    _operation("mirror", lambda picture, strength: picture[:, ::-1], learned=False),
    _operation("upside down", lambda picture, strength: picture[::-1], learned=False),
    _operation("rotate clockwise", lambda picture, strength: np.rot90(picture, -1), learned=False),
    _operation("rotate anticlockwise", lambda picture, strength: np.rot90(picture, 1), learned=False),
    _operation("posterise", _posterised, vouched=False),
    _operation("pixelate", _pixelated),
    _operation("pencil sketch", _sketched),
    _operation("vignette", _vignetted),
    *(_operation("tint", _tinted(value), colour=colour, tonal=True) for colour, value in COLOURS.items()),
    *(_operation("border", _bordered(value), colour=colour) for colour, value in BORDERS.items()),
)
OPERATIONS = tuple(operation for operation in EVERYTHING if operation.learned)
