"""What the training looks at: photographs that arrive inside Python and Debian packages, and pictures drawn by a program.

A picture is a float32 array of shape (height, width, 3) with values from 0 to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Picture = npt.NDArray[np.float32]
CARRIED = Path(".training") / "carried"
"""Copies of what arrives in packages, below the folder in which the training is started."""
LARGEST = 1280
"""Of what is larger, the finest detail is seldom sharp."""


@dataclass(frozen=True)
class Photograph:
    """A file inside an installed Python package, or with an absolute path a Debian package, and its licence as stated there."""

    package: str
    path: str
    licence: str

    @property
    def copy(self) -> Path:
        """What `python -m training carry` writes, for a machine without these packages."""
        return CARRIED / f"{self.path.strip('/').replace('/', '-')}.jpg"

    @property
    def file(self) -> Traversable:
        """Where it lies: where its package is installed, or the copy. Raises `FileNotFoundError` naming the package."""
        if self.path.startswith("/") or find_spec(self.package) is None:
            installed: Traversable = Path(self.path)
        else:
            installed = files(self.package) / self.path
        if installed.is_file():
            return installed
        if self.copy.exists():
            return self.copy
        raise FileNotFoundError(
            f"{self.path} is part of the package {self.package}, which is not installed (training/README.md)"
        )


def _mate(name: str, author: str) -> Photograph:
    return Photograph("mate-backgrounds", f"/usr/share/backgrounds/mate/nature/{name}.jpg", f"GPL-2+, {author}")


def _plasma(name: str) -> Photograph:
    path = f"/usr/share/wallpapers/{name}/contents/images/2560x1600.jpg"
    return Photograph("plasma-workspace-wallpapers", path, "GPL-2+, KDE Visual Design Group")


TRAINING = (
    Photograph("skimage", "data/chelsea.png", "CC0, Stefan van der Walt"),
    Photograph("skimage", "data/rocket.jpg", "public domain, SpaceX"),
    Photograph("skimage", "data/hubble_deep_field.jpg", "public domain, NASA"),
    Photograph("skimage", "data/retina.jpg", "CC0"),
    Photograph("skimage", "data/camera.png", "CC0, Lav Varshney"),
    Photograph("skimage", "data/brick.png", "CC0, CC0Textures"),
    Photograph("skimage", "data/grass.png", "CC0, CC0Textures"),
    Photograph("skimage", "data/gravel.png", "CC0, CC0Textures"),
    Photograph("sklearn", "datasets/images/flower.jpg", "CC BY 2.0, flickr.com/photos/vultilion"),
    Photograph("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "public domain, US Navy"),
    _mate("Aqua", "Charles Barbin"),
    _mate("Blinds", "Lennart Poettering, Andrea Cimitan"),
    _mate("Dune", "Marco Cogoni, Hylke Bons"),
    _mate("FreshFlower", "Jens Ansorg"),
    _mate("GreenMeadow", "Timothy Schellhase, Lapo Calamandrei"),
    _mate("RainDrops", "blackcombwhistler07"),
    _mate("Storm", "Sergey Nazarov"),
    _mate("TwoWings", "Charles Barbin, Hylke Bons"),
    _mate("YellowFlower", "Charles Barbin"),
    _plasma("BytheWater"),
    _plasma("ColdRipple"),
    _plasma("ColorfulCups"),
    _plasma("FallenLeaf"),
    _plasma("Grey"),
    _plasma("Kite"),
    _plasma("OneStandsOut"),
    _plasma("Path"),
    _plasma("summer_1am"),
)
HELD_OUT = (
    Photograph("skimage", "data/astronaut.png", "public domain, NASA"),
    Photograph("skimage", "data/coffee.png", "CC0, Rachel Michetti"),
    Photograph("sklearn", "datasets/images/china.jpg", "CC BY 2.0, flickr.com/photos/danielbuechele"),
    _mate("Garden", "Charles Barbin"),
    _mate("LadyBird", "Charles Barbin"),
    _plasma("EveningGlow"),
)
"""Never seen in training."""


@cache
def opened(photograph: Photograph) -> Image.Image:
    """The whole photograph in RGB, at most `LARGEST` pixels to a side."""
    with photograph.file.open("rb") as file:
        image = Image.open(file).convert("RGB")
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return image


def check() -> None:
    """Raises `FileNotFoundError` naming the package when a photograph is neither installed nor copied."""
    for photograph in (*TRAINING, *HELD_OUT):
        photograph.file  # noqa: B018


def as_array(image: Image.Image) -> Picture:
    """The values of an RGB image."""
    return np.asarray(image, np.float32) / 255


def as_image(picture: Picture) -> Image.Image:
    """The RGB image of some values; what lies outside 0 to 1 is clipped."""
    return Image.fromarray((picture.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def grid(rows: Sequence[Picture]) -> Image.Image:
    """Rows of pictures, all of one size, in three columns."""
    third = (len(rows) + 2) // 3
    filled = [*rows, *[np.zeros_like(rows[0])] * (3 * third - len(rows))]
    columns = [np.concatenate(filled[start : start + third]) for start in range(0, 3 * third, third)]
    return as_image(np.concatenate(columns, axis=1))


def cropped(image: Image.Image, width: int, height: int, *, zoom: float, x: float, y: float) -> Image.Image:
    """A window of the asked aspect: `zoom` from 0 (as large as fits) to 1 (exact pixels), `x` and `y` from 0 to 1 place it."""
    largest = min(image.width / width, image.height / height)
    scale = max(largest ** (1 - zoom), 1.0) if largest > 1 else largest
    wide, high = width * scale, height * scale
    left, top = x * (image.width - wide), y * (image.height - high)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=(left, top, left + wide, top + high))


def held_out(width: int, height: int) -> list[Picture]:
    """Every held-out photograph's middle, as large as fits."""
    return [as_array(cropped(opened(one), width, height, zoom=0, x=0.5, y=0.5)) for one in HELD_OUT]


def drawn(rng: np.random.Generator, width: int, height: int) -> Picture:
    """A photograph's window with changed colours, a drawing, or one laid over the other."""
    kind = rng.random()
    if kind < 0.65:
        picture = _photographed(rng, width, height)
    elif kind < 0.85:
        picture = _painted(rng, width, height)
    else:
        mask = _clouds(rng, width, height, 1)
        mask = np.clip((mask - 0.5) * 8 + 0.5, 0, 1)
        picture = mask * _photographed(rng, width, height) + (1 - mask) * _painted(rng, width, height)
    return picture.astype(np.float32).clip(0, 1)


def _photographed(rng: np.random.Generator, width: int, height: int) -> Picture:
    weights = np.array([3 if photograph.path.endswith((".jpg", "chelsea.png")) else 1 for photograph in TRAINING])
    image = opened(TRAINING[rng.choice(len(TRAINING), p=weights / weights.sum())])
    window = cropped(image, width, height, zoom=rng.random() ** 2, x=rng.random(), y=rng.random())
    picture = as_array(window)
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    if rng.random() < 0.6:
        picture = _recoloured(rng, picture)
    return picture


def _recoloured(rng: np.random.Generator, picture: Picture) -> Picture:
    """Other hues, saturation and tones: few photographs stand for many."""
    grey = picture.mean(axis=2, keepdims=True)
    mixing = np.eye(3) + rng.normal(0, 0.25, (3, 3))
    mixing /= mixing.sum(axis=1, keepdims=True)
    mixed = grey + (picture - grey) @ mixing.T * rng.uniform(0.6, 1.6)
    mixed = np.clip(mixed, 0, 1) ** rng.uniform(0.7, 1.4)
    if grey.std() > 0 and np.abs(picture - grey).max() < 0.02:
        dark, light = np.sort(rng.random((2, 3)), axis=0)
        mixed = dark + (light - dark) * mixed
    return np.asarray(mixed, np.float32)


def _clouds(rng: np.random.Generator, width: int, height: int, channels: int) -> Picture:
    """Smooth noise of several sizes, from 0 to 1."""
    total = np.zeros((height, width, channels), np.float32)
    for octave in range(rng.integers(1, 5)):
        cells = 2 ** (octave + 1) + 1
        for channel in range(channels):
            small = Image.fromarray(rng.random((cells, cells), np.float32))
            layer = small.resize((width, height), Image.Resampling.BICUBIC)
            total[:, :, channel] += np.asarray(layer) / 2**octave
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(value) for value in rng.integers(0, 256, 3))


def _painted(rng: np.random.Generator, width: int, height: int) -> Picture:
    """Clouds of colour with shapes and strokes on them."""
    dark, light = rng.random((2, 3))
    field = _clouds(rng, width, height, 3 if rng.random() < 0.5 else 1)
    image = as_image(dark + (light - dark) * field).resize((2 * width, 2 * height), Image.Resampling.BILINEAR)
    canvas = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 9)):
        _shape(rng, canvas, image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    if rng.random() < 0.2:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2)))
    picture = as_array(image)
    if rng.random() < 0.3:
        picture = picture + rng.normal(0, rng.uniform(0.01, 0.06), picture.shape).astype(np.float32)
    return picture


def _shape(rng: np.random.Generator, canvas: ImageDraw.ImageDraw, size: Sequence[int]) -> None:
    wide, high = size
    centre = rng.random(2) * size
    extent = rng.uniform(0.04, 0.45, 2) * min(size)
    box = [*(centre - extent / 2), *(centre + extent / 2)]
    kind = rng.integers(0, 5)
    if kind == 0:
        canvas.ellipse(box, fill=_colour(rng))
    elif kind == 1:
        canvas.rectangle(box, fill=_colour(rng))
    elif kind == 2:
        corners = centre + rng.normal(0, 0.25, (rng.integers(3, 7), 2)) * min(size)
        canvas.polygon([tuple(corner) for corner in corners], fill=_colour(rng))
    elif kind == 3:
        ends = rng.random((2, 2)) * (wide, high)
        canvas.line([tuple(end) for end in ends], fill=_colour(rng), width=int(rng.integers(1, 16)))
    else:
        letters = "".join(chr(code) for code in rng.integers(33, 127, rng.integers(1, 8)))
        canvas.text(tuple(box[:2]), letters, fill=_colour(rng), font_size=int(rng.integers(12, 60)))
