"""Many edits: a manifest of what became of each row, and running those that are open.

The manifest is written after each step, a line a time, so that a process that dies anywhere can go on. A row's idempotency key
is made of the manifest's own id, the row and its attempt: submitting it twice runs it once.
"""

import asyncio
import csv
import json
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from darkroom.asynchronous import AsyncClient
from darkroom.faults import ApiError, CancelledError, EditFailedError, GoneError, UnreachableError
from darkroom.shapes import Picture
from darkroom.tables import MANIFEST, MANIFEST_TABLE, Row

log = logging.getLogger(__name__)

COLUMNS = ("custom_id", "image", "status", "file", "generation_id", "seed", "cost_usd", "error")
AFTER_OUTAGE_S = 5.0
OUTAGES = frozenset({429, 502, 503, 504})
UNAUTHENTICATED, NOT_FOUND = 401, 404

Done = Callable[[str], None]
"""Told each row's outcome."""


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

    def reason(self, row: Row) -> str:
        """Why it came to nothing."""
        return str(self._known.get(row.digest, {}).get("error") or "no reason was given")

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
        with (self.folder / MANIFEST_TABLE).open("w", newline="", encoding="utf-8", errors="backslashreplace") as lines:
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

    Raises `UnreachableError` where nobody answers at the beginning; an outage later is waited out. A key that ends meanwhile ends
    this as well (`ApiError` 401), as does a manifest that cannot be written (`OSError`); the same again goes on from there.
    """
    await client.usage()
    waiting = iter(rows)

    async def work() -> None:
        for row in waiting:
            await _one(client, row, manifest)
            done(manifest.outcome(row))

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(concurrency, len(rows))):
                tasks.create_task(work())
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


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
            if exc.status == UNAUTHENTICATED:
                raise
            # What was accepted is paid for: its result is there for a later try.
            is_kept = manifest.generation_id(row) is not None and exc.status != NOT_FOUND
            manifest.note(row, status="unsaved" if is_kept else "refused", error=str(exc))
        except (GoneError, OSError, RuntimeError, TypeError, ValueError) as exc:
            manifest.note(row, status="refused", error=str(exc))
        else:
            _save(picture, row, manifest)
        return


def saved(picture: Picture, folder: Path, place: str, *, has_ending: bool = False) -> str:
    """Store a result in a folder, whole or not at all; its file's name there. Raises `OSError` and `ValueError`."""
    file = place if has_ending else f"{place}.{picture.format}"
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
        if (format_ := row.format) is not None:
            parameters.setdefault("output_format", format_)
        accepted = await client.enqueue(
            row.image, parameters.pop("prompt"), custom_id=row.custom_id,
            idempotency_key=manifest.idempotency_key(row), **parameters,
        )  # fmt: skip
        id_ = accepted.ids[0]
        manifest.note(row, status="accepted", generation_id=id_)
    return await client.picture(id_)
