"""Many edits: rows, a manifest of what became of each, and running those that are open.

The manifest is written after each step, a line a time, so that a process that dies anywhere can go on. A row's idempotency key
is made of the manifest's own id, the row and its attempt: submitting it twice runs it once.
"""

import asyncio
import csv
import hashlib
import json
import logging
import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from darkroom.asynchronous import AsyncClient
from darkroom.faults import ApiError, CancelledError, EditFailedError, GoneError, UnreachableError
from darkroom.inputs import is_url
from darkroom.shapes import Picture

log = logging.getLogger(__name__)

MANIFEST = "manifest.jsonl"
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})
COLUMNS = ("custom_id", "image", "status", "file", "generation_id", "seed", "cost_usd", "error")
FAULTS = 20
"""Of a table that are named at once."""
AFTER_OUTAGE_S = 5.0
OUTAGES = frozenset({429, 502, 503, 504})

Done = Callable[[str], None]
"""Told each row's outcome."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """An edit: its name in the manifest, its picture (a path, a URL, or None), its parameters, and where its result goes."""

    custom_id: str
    image: str | None
    parameters: Mapping[str, Any] = field(repr=False)
    out: str | None = None

    @property
    def place(self) -> str:
        """Where its result goes, in the folder; without an ending that of the result is added."""
        return self.out or place_of(self.custom_id)

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
                rows.append(_row(source, number, {**_known(defaults), **values}))
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
            return [
                {name: _value(name, text) for name, text in row.items() if name and text}
                for row in csv.DictReader(lines)
            ]
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
        row = json.loads(line)
    except ValueError as exc:
        raise ValueError(f"{source}, line {number}: {exc}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{source}, line {number}: a row is an object")  # noqa: TRY004  (as every other fault of a file)
    return row


def _row(source: Path, number: int, values: dict[str, Any]) -> Row:
    image, out = values.pop("image", values.pop("input_image", None)), values.pop("out", None)
    if values.get("num_generations", 1) != 1:
        raise ValueError(f"{source}, row {number}: num_generations: a row makes one picture; give each a row")
    custom_id = str(values.pop("custom_id", number))
    if not values.get("prompt"):
        raise ValueError(f"{source}, row {number}: prompt is missing; --prompt gives one to all")
    if isinstance(image, str) and not image.startswith(("http://", "https://", "data:")):
        folder = source if source.is_dir() else source.parent
        path = Path(image).expanduser()
        file = next((one for one in (path, folder / path) if one.is_file()), None)
        if file is None:
            raise ValueError(f"{source}, row {number}: there is no file {image}")
        image = str(file)
    return Row(custom_id=custom_id, image=image, parameters=values, out=None if out is None else str(out))


class Manifest:
    """What became of each row, in a file that is only ever added to; the last line of a row holds."""

    def __init__(self, folder: Path, id_: str, known: dict[str, dict[str, Any]], lines: IO[str]) -> None:
        self.folder = folder
        self.id = id_
        self._known = known
        self._lines = lines

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator["Manifest"]:
        """The folder's, or a new one."""
        file = folder / MANIFEST
        known: dict[str, dict[str, Any]] = {}
        id_ = None
        if file.exists():
            for line in file.read_text().splitlines():
                # The last line of a process that was killed may be half of one.
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                id_ = entry.get("batch", id_)
                if "row" in entry:
                    known[entry["row"]] = {**known.get(entry["row"], {}), **entry}
        with file.open("a") as lines:
            manifest = cls(folder, id_ or secrets.token_hex(8), known, lines)
            # On a line of its own, whatever the last one is.
            lines.write("\n" if file.stat().st_size else "")
            if id_ is None:
                manifest._append({"batch": manifest.id})
            yield manifest

    def is_open(self, row: Row, *, retry_failed: bool) -> bool:
        """Whether a row is to be run, or to be waited for."""
        entry = self._known.get(row.digest, {})
        if retry_failed and entry.get("status") in ("failed", "refused", "cancelled"):
            self.note(row, status="open", attempt=entry.get("attempt", 0) + 1, generation_id=None, error=None)
            return True
        if entry.get("status") == "succeeded":
            return not (self.folder / str(entry["file"])).is_file()
        return entry.get("status") not in ("failed", "refused", "cancelled")

    def outcome(self, row: Row) -> str:
        """How a row stands."""
        return str(self._known.get(row.digest, {}).get("status", "open"))

    def idempotency_key(self, row: Row) -> str:
        """The same for the same row and attempt."""
        return f"{self.id}-{row.digest}-{self._known.get(row.digest, {}).get('attempt', 0)}"

    def generation_id(self, row: Row) -> str | None:
        """The generation that a row led to, if it did."""
        return self._known.get(row.digest, {}).get("generation_id")

    def note(self, row: Row, **facts: Any) -> None:
        """Add to what is known of a row."""
        entry = {"row": row.digest, "custom_id": row.custom_id, "image": row.image, **facts}
        self._known[row.digest] = {**self._known.get(row.digest, {}), **entry}
        self._append(entry)

    def write_csv(self, rows: Sequence[Row]) -> None:
        """The manifest as a table: rows of earlier batches, then these in their order."""
        these = {row.digest for row in rows}
        with (self.folder / "manifest.csv").open("w", newline="") as lines:
            writer = csv.DictWriter(lines, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(known for digest, known in self._known.items() if digest not in these)
            for row in rows:
                writer.writerow(
                    {
                        "custom_id": row.custom_id,
                        "image": row.image,
                        "status": "open",
                        **self._known.get(row.digest, {}),
                    }
                )

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._lines.write(json.dumps(entry) + "\n")
        self._lines.flush()


async def run(
    client: AsyncClient, rows: Sequence[Row], manifest: Manifest, *, concurrency: int, done: Done = lambda outcome: None
) -> None:
    """Run rows, so many at a time, until each has its result or a reason why not.

    Raises `UnreachableError` where nobody answers at the beginning; an outage later is waited out.
    """
    await client.usage()
    waiting = iter(rows)

    async def work() -> None:
        for row in waiting:
            await _one(client, row, manifest)
            done(manifest.outcome(row))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(concurrency, len(rows))):
            tasks.create_task(work())


async def _one(client: AsyncClient, row: Row, manifest: Manifest) -> None:
    """A row to its end. An outage of the service is waited out."""
    while True:
        try:
            picture = await _picture(client, row, manifest)
        except UnreachableError as exc:
            log.warning("waiting: %s", exc)
            await asyncio.sleep(AFTER_OUTAGE_S)
            continue
        except EditFailedError as exc:
            error = f"{exc.generation.error_message} ({exc.generation.error_code})"
            manifest.note(row, status="failed", error=error)
        except CancelledError:
            manifest.note(row, status="cancelled")
        except ApiError as exc:
            if exc.status in OUTAGES:
                await asyncio.sleep(AFTER_OUTAGE_S)
                continue
            manifest.note(row, status="refused", error=str(exc))
        except (GoneError, OSError, TypeError) as exc:
            manifest.note(row, status="refused", error=str(exc))
        else:
            _save(picture, row, manifest)
        return


def saved(picture: Picture, folder: Path, place: str, *, has_ending: bool = False) -> str:
    """Store a result in a folder, whole or not at all; its file's name there. Raises `OSError` and `ValueError`."""
    ending = picture.content_type.partition("/")[2].replace("jpeg", "jpg")
    file = place if has_ending else f"{place}.{ending}"
    target = folder / file
    target.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first: a file that is there is whole.
    picture.save(target.with_name(target.name + ".part")).replace(target)
    return file


def _save(picture: Picture, row: Row, manifest: Manifest) -> None:
    """Store a result, and note that; or why it cannot be stored. It can be downloaded again."""
    generation = picture.generation
    try:
        file = saved(picture, manifest.folder, row.place, has_ending=bool(row.out))
    except (OSError, ValueError) as exc:
        manifest.note(row, status="unsaved", generation_id=generation.id, error=str(exc))
        return
    manifest.note(
        row, status="succeeded", file=file, generation_id=generation.id, seed=generation.seed,
        cost_usd=generation.cost_usd, error=None,
    )  # fmt: skip


async def _picture(client: AsyncClient, row: Row, manifest: Manifest) -> Picture:
    id_ = manifest.generation_id(row)
    if id_ is None:
        parameters = dict(row.parameters)
        accepted = await client.enqueue(
            row.image, parameters.pop("prompt"), custom_id=row.custom_id,
            idempotency_key=manifest.idempotency_key(row), **parameters,
        )  # fmt: skip
        id_ = accepted.ids[0]
        manifest.note(row, status="accepted", generation_id=id_)
    return await client.picture(id_)
