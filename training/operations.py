"""The edits `kontext-mini` learns: each an exact operation on pixels. How people ask for them is in `training.sentences`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from training.pictures import Picture, as_array, as_image

Apply = Callable[[Picture, float], Picture]
"""Picture and strength (1 is plain) to picture; only rotating changes the shape. `Operation.exact` clips what leaves 0 to 1."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)

KINDS = ("nothing", "warmth", "light", "contrast", "saturation", "colour", "detail", "corners", "frame")
"""What an operation changes, in the order in which two operations of one instruction are applied."""


@dataclass(frozen=True)
class Operation:
    """One thing that can be requested."""

    name: str
    apply: Apply
    kind: str
    tonal: bool = False
    """Whether it changes colour or tone and leaves every pixel in its place."""
    graded: bool = False
    """Whether a word of strength changes it."""
    colour: str | None = None
    """The colour that its phrasings name."""
    vouched: bool = True
    """Whether it is done well enough to be promised."""
    learned: bool = True
    """Whether it is trained. What moves pixels far was not learned in the time there was."""

    @property
    def phrased_as(self) -> str:
        """The table of its phrasings: one for all colours."""
        return self.name.removesuffix(f" {self.colour}")

    def exact(self, picture: Picture, strength: float = 1.0) -> Picture:
        """The result that is requested."""
        return self.apply(picture, strength).astype(np.float32).clip(0, 1)


@dataclass(frozen=True)
class Edit:
    """What one instruction means: operations, at most one of a kind, and one strength for those that are graded."""

    operations: tuple[Operation, ...]
    strength: float = 1.0

    def exact(self, picture: Picture) -> Picture:
        """The result that is requested."""
        for operation in sorted(self.operations, key=lambda one: KINDS.index(one.kind)):
            picture = operation.exact(picture, self.strength)
        return picture


def go_together(first: Operation, second: Operation) -> bool:
    """Whether two operations make sense in one instruction, and the second is not undone or hidden by the first."""
    kinds = {first.kind, second.kind}
    if len(kinds) < 2 or "nothing" in kinds:
        return False
    if "colour" in kinds and kinds & {"warmth", "saturation"}:
        return False
    sketched = "pencil sketch" in (first.name, second.name)
    return not (sketched and kinds & {"warmth", "saturation", "colour", "light", "contrast"})


STRENGTHS = (0.5, 1.0, 1.6)
"""What a word of strength stands for: weaker, as usual, stronger."""


def drawn_edit(
    rng: np.random.Generator, first: Operation, another: Callable[[], Operation], *, share_paired: float
) -> Edit:
    """An edit of `first`, in so many cases of another operation too where both go together, some of another strength."""
    operations = [first]
    if rng.random() < share_paired:
        second = another()
        if go_together(first, second):
            operations.append(second)
    graded = any(operation.graded for operation in operations)
    return Edit(tuple(operations), float(rng.choice(STRENGTHS, p=(0.2, 0.6, 0.2))) if graded else 1.0)


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


def _scale(picture: Picture) -> float:
    """How much longer than 128x128 a picture's side is: lengths grow with it, so that a result looks the same at every size."""
    height, width = picture.shape[:2]
    return float(np.sqrt(height * width) / 128)


def _softened(picture: Picture, radius: float) -> Picture:
    return as_array(as_image(picture).filter(ImageFilter.GaussianBlur(radius * _scale(picture))))


def _blurred(picture: Picture, strength: float) -> Picture:
    return _softened(picture, 2.5 * strength)


def _sharpened(picture: Picture, strength: float) -> Picture:
    return picture + (picture - _softened(picture, 1.5)) * 2 * strength


def _posterised(picture: Picture, strength: float) -> Picture:
    return np.floor(picture.clip(0, 0.999) * 3) / 2


def _pixelated(picture: Picture, strength: float) -> Picture:
    height, width = picture.shape[:2]
    small = as_image(picture).resize((width // 8, height // 8), Image.Resampling.BOX)
    return as_array(small.resize((width, height), Image.Resampling.NEAREST))


def _sketched(picture: Picture, strength: float) -> Picture:
    grey = _grey(picture)
    soft = _softened(1 - grey, 3)
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
        rim = max(round(8 * _scale(picture)), 1)
        framed[rim:-rim, rim:-rim] = picture[rim:-rim, rim:-rim]
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


EVERYTHING = (
    Operation("nothing", lambda picture, strength: picture, "nothing", tonal=True),
    Operation("black and white", lambda picture, strength: _grey(picture), "colour", tonal=True),
    Operation("sepia", _sepia, "colour", tonal=True),
    Operation("invert", lambda picture, strength: 1 - picture, "colour", tonal=True, vouched=False),
    Operation("warmer", _scaled(1.3, 1.0, 0.65), "warmth", tonal=True, graded=True),
    Operation("cooler", _scaled(0.65, 0.95, 1.35), "warmth", tonal=True, graded=True),
    Operation("brighter", _gamma(0.5), "light", tonal=True, graded=True),
    Operation("darker", _gamma(2.0), "light", tonal=True, graded=True),
    Operation("more contrast", _contrasted(1.8), "contrast", tonal=True, graded=True),
    Operation("less contrast", _contrasted(0.45), "contrast", tonal=True, graded=True),
    Operation("more saturated", _saturated(2.2), "saturation", tonal=True, graded=True, vouched=False),
    Operation("blur", _blurred, "detail", graded=True),
    Operation("sharpen", _sharpened, "detail", graded=True, vouched=False),
    Operation("mirror", lambda picture, strength: picture[:, ::-1], "detail", vouched=False, learned=False),
    Operation("upside down", lambda picture, strength: picture[::-1], "detail", vouched=False, learned=False),
    Operation(
        "rotate clockwise", lambda picture, strength: np.rot90(picture, -1), "detail", vouched=False, learned=False
    ),
    Operation(
        "rotate anticlockwise", lambda picture, strength: np.rot90(picture), "detail", vouched=False, learned=False
    ),
    Operation("posterise", _posterised, "detail", vouched=False),
    Operation("pixelate", _pixelated, "detail"),
    Operation("pencil sketch", _sketched, "detail"),
    Operation("vignette", _vignetted, "corners"),
    *(Operation(f"tint {name}", _tinted(value), "colour", tonal=True, colour=name) for name, value in COLOURS.items()),
    *(Operation(f"border {name}", _bordered(value), "frame", colour=name) for name, value in BORDERS.items()),
)
"""In an order that must stay: an operation's place gives its conditioning."""
OPERATIONS = tuple(operation for operation in EVERYTHING if operation.learned)
NOTHING = EVERYTHING[0]
_PAIRS = (("warmer", "cooler"), ("brighter", "darker"), ("more contrast", "less contrast"), ("blur", "sharpen"))
OPPOSITES = {**dict(_PAIRS), **{second: first for first, second in _PAIRS}}
"""Operations that are taken for each other, by name."""
