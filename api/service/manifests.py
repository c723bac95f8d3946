"""What became of a batch's lines, as files: JSON lines and CSV."""

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from api.service.read import ResultView
from storage.contracts import batches

Row = dict[str, Any]

COLUMNS = (
    "custom_id", "generation_id", "status", "error_code", "error_message", "result_url", "expires_at", "width", "height", "seed",
    "cost_usd",
)  # fmt: skip


def row(batch: batches.Batch, line: batches.Line, view: ResultView | None) -> Row:
    """What became of a line; without `view` it was refused, cancelled before it was submitted, or erased since."""
    told: Row = {**dict.fromkeys(COLUMNS), "custom_id": line.custom_id}
    if line.fault is not None:
        return {**told, "status": "refused", "error_code": line.fault.code, "error_message": line.fault.message}
    if view is None:
        return {**told, "generation_id": batches.generation_id(batch.id, line.custom_id), "status": "cancelled"}
    one, result = view.generation, view.result
    return told | {
        "generation_id": one.id,
        "status": one.status.value,
        "error_code": one.error_code,
        "error_message": one.error_message,
        "result_url": view.url,
        "expires_at": int(view.expires_at.timestamp()) if view.expires_at else None,
        "width": result.width if result else None,
        "height": result.height if result else None,
        "seed": one.edit.seed,
        "cost_usd": result.cost_usd if result else None,
    }


def jsonl(rows: Iterable[Row]) -> bytes:
    """A JSON object a line."""
    return "".join(json.dumps(one) + "\n" for one in rows).encode()


def csv_file(rows: Iterable[Row]) -> bytes:
    """A table with a line of names."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    # What a spreadsheet would take for a formula is text.
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
