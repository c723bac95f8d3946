"""Batches that the service runs by itself: rows as lines of one request, and results saved when they are there."""

import base64
import hashlib
import json
import mimetypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from darkroom import inputs
from darkroom.batches import NOT_FOUND, Done, saved
from darkroom.faults import DarkroomError, GoneError, RefusedError
from darkroom.synchronous import Client
from darkroom.tables import Row, place_of

OVER = frozenset({"completed", "cancelled"})
"""States of a batch of which nothing more comes."""


def line_of(row: Row) -> bytes:
    """A row as a JSON object in a line; a picture of this machine goes with it. Raises `OSError` where it cannot be read."""
    fields = inputs.shaped(row.parameters, has_picture=row.image is not None)
    picture = {} if row.image is None else {"input_image": _url(row.image)}
    return json.dumps({"custom_id": row.custom_id, **fields, **picture}).encode()


def _url(image: str) -> str:
    if inputs.is_url(image):
        return image
    path = Path(image).expanduser()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def submitted(
    client: Client,
    rows: Sequence[Row],
    *,
    name: str = "",
    webhook_url: str | None = None,
    idempotency_key: str | None = None,
) -> Mapping[str, Any]:
    """The batch that rows make, with what became of each line. The same rows make the same batch, as long as it has no other key.

    Raises `OSError` for a picture that cannot be read, and as `Client.ask`.
    """
    body = b"\n".join(map(line_of, rows))
    key = idempotency_key or hashlib.sha256(f"{name}\n{webhook_url}\n".encode() + body).hexdigest()
    query = {"name": name, **({"webhook_url": webhook_url} if webhook_url else {})}
    headers = {"Idempotency-Key": key, "Content-Type": "application/jsonl"}
    answer: Mapping[str, Any] = client.ask("POST", "/api/ai/batches", params=query, content=body, headers=headers)
    return answer


def manifest(client: Client, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What became of each line of a batch that is over, in the order of the request. Raises `ValueError` before."""
    return _lines(_manifest_file(client, batch, "jsonl"))


def _manifest_file(client: Client, batch: Mapping[str, Any], ending: str) -> bytes:
    if not batch["results"]:
        raise ValueError(f"batch {batch['batch_id']} is {batch['status']}, and its manifest is not there yet")
    return client.fetch(batch["results"][f"{ending}_url"])


def _lines(file: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.decode().splitlines() if line]


def save_results(
    client: Client, batch: Mapping[str, Any], folder: Path, progress: Callable[[int], AbstractContextManager[Done]]
) -> None:
    """Save the manifest of a batch that is over, and each result that is not in the folder yet.

    `progress` is told how many are missing. Raises `ValueError` for a batch that is not over and for a folder that has something
    else in their places, `OSError`, and once all else is saved `DarkroomError` for results that are no longer kept.
    """
    files = {ending: _manifest_file(client, batch, ending) for ending in ("csv", "jsonl")}
    folder.mkdir(parents=True, exist_ok=True)
    results = {place: line["generation_id"] for place, line in _placed(_lines(files["jsonl"]))}
    there = _saved_before(folder, results)
    for ending, file in files.items():
        (folder / f"manifest.{ending}").write_bytes(file)
    missing = [(place, id_) for place, id_ in results.items() if place not in there]
    gone: list[str] = []
    with progress(len(missing)) as done:
        for place, id_ in missing:
            try:
                saved(client.picture(id_), folder, place)
            except (GoneError, RefusedError) as exc:
                if isinstance(exc, RefusedError) and exc.status != NOT_FOUND:
                    raise
                gone.append(place)
                done("gone")
            else:
                done("succeeded")
    if gone:
        raise DarkroomError(f"{len(gone)} results are no longer kept, {gone[0]} for one; all others are saved")


def _saved_before(folder: Path, results: Mapping[str, str]) -> set[str]:
    """Which of these, each by its place and its generation, the folder has by its manifest. Raises `ValueError`."""
    file = folder / "manifest.jsonl"
    noted = _lines(file.read_bytes()) if file.exists() else []
    ids = {line["generation_id"] for line in noted if line.get("status") == "succeeded" and "custom_id" in line}
    if not ids <= set(results.values()):
        raise ValueError(f"{folder} has the results of something else; choose another folder")
    there = {one.stem: one for one in folder.iterdir()}
    for place, id_ in results.items():
        if place in there and id_ not in ids:
            raise ValueError(f"{there[place]} is not of this batch; choose another folder")
    return results.keys() & there.keys()


def _placed(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each line that succeeded, with a file's name of its own."""
    taken = {"manifest"}
    for number, line in enumerate(lines, 1):
        place = place_of(line["custom_id"])
        place = f"{place}-{number}" if place in taken else place
        taken.add(place)
        if line["status"] == "succeeded":
            yield place, line
