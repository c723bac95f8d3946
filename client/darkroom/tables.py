"""The rows of a batch: read from a table or a folder of pictures, and checked before any of them is sent."""

import csv
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from darkroom.inputs import expanded, is_url
from darkroom.shapes import FORMATS

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})
MANIFEST, MANIFEST_TABLE = "manifest.jsonl", "manifest.csv"
MOST_OF_CELL = 64 * 2**20
"""Characters of a cell."""
FAULTS = 20
"""Of a table that are named at once."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """An edit: its name in the manifest, its picture (a path, a URL, or None), its parameters, and where its result goes."""

    custom_id: str
    image: str | None
    parameters: Mapping[str, Any] = field(repr=False)
    out: str | None = None

    @property
    def place(self) -> str:
        """Where its result goes, in the folder: as `out` says, or by its name, to which the result's ending is added."""
        return self.out or place_of(self.custom_id)

    @property
    def format(self) -> str | None:
        """The format that the ending of `out` names."""
        return None if self.out is None else FORMATS.get(PureWindowsPath(self.out).suffix.lower())

    @property
    def digest(self) -> str:
        """What makes it this row: its content, not its place."""
        content = json.dumps([self.custom_id, self.image, self.parameters], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:24]


def place_of(custom_id: str) -> str:
    """A file's name for a row of this name."""
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in custom_id).lstrip(".") or "_"


def rows_of(source: Path, defaults: Mapping[str, Any]) -> list[Row]:
    """The rows of a .csv or .jsonl file or of a folder. Raises `ValueError` naming what is wrong, a line each."""
    faults: list[str] = []
    rows = []
    for number, values in enumerate(_read(source, faults), 1):
        if values is not None:
            with _noted(faults):
                rows.append(_row(source, number, {**_known(defaults), **values}, columns=", ".join(values)))
    twice = [name for name, count in Counter(row.custom_id for row in rows).items() if count > 1]
    faults += [f"{source}: custom_id {name!r} stands there twice" for name in twice]
    places = Counter(row.place for row in rows if row.custom_id not in twice)
    shared = [place for place, count in places.items() if count > 1]
    faults += [f"{source}: several rows would be saved as {place}; give each an `out` of its own" for place in shared]
    if faults:
        more = [f"... and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
        raise ValueError("\n".join(faults[:FAULTS] + more))
    return rows


def _read(source: Path, faults: list[str]) -> Sequence[Mapping[str, Any] | None]:
    """What a table or a folder has, in its order; None in the place of a line that cannot be read, which `faults` then names."""
    if source.is_dir():
        files = sorted(one for one in source.iterdir() if one.suffix.lower() in PICTURES)
        stems = Counter(one.stem for one in files)
        return [{"custom_id": one.name if stems[one.stem] > 1 else one.stem, "image": str(one)} for one in files]
    if source.suffix.lower() == ".csv":
        with source.open(newline="", encoding="utf-8-sig") as lines:
            # Spreadsheets write semicolons where a comma is the decimal point.
            names = lines.readline()
            lines.seek(0)
            delimiter = ";" if names.count(";") > names.count(",") else ","
            return _cells(source, csv.DictReader(lines, delimiter=delimiter, strict=True), faults)
    if source.suffix.lower() not in (".jsonl", ".ndjson"):
        raise ValueError(f"{source}: a batch is a .csv or .jsonl file, or a folder of pictures")
    read: list[dict[str, Any] | None] = []
    # What else `splitlines` takes for the end of one may stand in a prompt.
    for number, line in enumerate(source.read_text("utf-8-sig").split("\n"), 1):
        if line.strip():
            read.append(None)
            with _noted(faults):
                read[-1] = _parsed(source, number, line)
    return read


def _cells(source: Path, rows: "csv.DictReader[str]", faults: list[str]) -> list[dict[str, Any] | None]:
    """Rows of a CSV file, until one that cannot be taken apart."""
    # A picture may stand in a cell, as a data URI.
    csv.field_size_limit(MOST_OF_CELL)
    read: list[dict[str, Any] | None] = []
    try:
        for number, row in enumerate(rows, 1):
            more = row.pop(None, None)
            if more:
                faults.append(f"{source}, row {number}: more cells than columns; a text with commas stands in quotes")
            read.append(None if more else {name: _value(name, text) for name, text in row.items() if text})
    except csv.Error as exc:
        faults.append(f"{source}, row {len(read) + 1}: {exc}")
    return read


@contextmanager
def _noted(faults: list[str]) -> Iterator[None]:
    """Note what is wrong with a row, and go on with the next."""
    try:
        yield
    except ValueError as exc:
        faults.append(str(exc))


def replaced(rows: Sequence[Row], folder: Path) -> Path | None:
    """A picture of a row's that a result saved in this folder could replace."""
    images = {Path(row.image).resolve() for row in rows if row.image is not None and not is_url(row.image)}
    for row in rows:
        endings = ("",) if row.out else sorted(PICTURES)
        for target in ((folder / f"{row.place}{ending}").resolve() for ending in endings):
            if target in images:
                return target
    return None


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


TEXTS = frozenset({"custom_id", "prompt", "image", "input_image", "out", "group", "negative_prompt", "model"})


def _value(name: str, text: str) -> Any:
    """A cell: a number or a boolean where it is one and its column may be, text otherwise."""
    if name in TEXTS:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    is_plain = isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if is_plain else text


def _parsed(source: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_no_number)
    except json.JSONDecodeError as exc:
        raise ValueError(f"{source}, line {number}, column {exc.colno}: {exc.msg}") from None
    except ValueError as exc:
        raise ValueError(f"{source}, line {number}: {exc}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{source}, line {number}: a row is an object")  # noqa: TRY004  (as every other fault of a file)
    return row


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _leads_out(out: str) -> bool:
    """Whether a path leads out of the folder it is laid into, on any system."""
    path = PureWindowsPath(out)
    return bool(path.anchor) or ".." in path.parts


def _row(source: Path, number: int, values: dict[str, Any], *, columns: str) -> Row:
    image, out = values.pop("image", values.pop("input_image", None)), values.pop("out", None)
    if values.get("num_generations", 1) != 1:
        raise ValueError(f"{source}, row {number}: num_generations: a row makes one picture; give each a row")
    if out is not None and _leads_out(str(out)):
        raise ValueError(f"{source}, row {number}: out must be a path inside the folder of results; got {out}")
    if str(out).lower() in (MANIFEST, MANIFEST_TABLE):
        raise ValueError(f"{source}, row {number}: out {out} is the batch's own file; give another name")
    if image is not None and not isinstance(image, str):
        raise ValueError(f"{source}, row {number}: image must be one path or URL; got {type(image).__name__}")
    custom_id = str(values.pop("custom_id", number))
    if not values.get("prompt"):
        raise ValueError(
            f"{source}, row {number}: prompt is missing beside {columns or 'nothing'}; --prompt gives one to all"
        )
    if isinstance(image, str) and not image.startswith(("http://", "https://", "data:")):
        folder = source if source.is_dir() else source.parent
        path = expanded(image)
        file = next((one for one in (path, folder / path) if one.is_file()), None)
        if file is None:
            raise ValueError(f"{source}, row {number}: there is no file {image}")
        image = str(file)
    return Row(custom_id=custom_id, image=image, parameters=values, out=None if out is None else str(out))
