"""What commands print: results on standard output, everything else on standard error, JSON where it is asked for."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from darkroom.shapes import Generation

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False)

COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow", "processing": "cyan", "queued": "dim"}


def note(text: str) -> None:
    """Something that is no result; nothing when nobody looks."""
    if err.is_terminal:
        err.print(text, style="dim")


def as_json(value: object) -> None:
    """A value for programs."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def as_json_lines(values: Iterable[object]) -> None:
    """Values for programs, one a line, as they come."""
    for value in values:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people; tab-separated values where standard output is no terminal."""
    if not out.is_terminal:
        for row in rows:
            sys.stdout.write("\t".join("" if one is None else str(one) for one in row) + "\n")
        return
    drawn = drawn_table(columns, rows)
    out.print(drawn)


def drawn_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """The same, to be printed or refreshed."""
    rows = list(rows)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        # The first is what other commands are given.
        width = max((len(str(row[0])) for row in rows), default=0) if place == 0 else None
        drawn.add_column(column, overflow="ellipsis", no_wrap=True, min_width=width)
    for row in rows:
        drawn.add_row(*(one if isinstance(one, Text) else escape("" if one is None else str(one)) for one in row))
    return drawn


def waiting(reason: Mapping[str, Any] | None) -> str | None:
    """Why a generation is not running yet, in words."""
    if not reason:
        return None
    words = {
        "paused": "its operator, who paused it",
        "no_worker": "a worker",
        "cold": "a worker that loads the model",
        "turn": "its turn",
    }
    return words.get(reason["reason"], f"the model, which is loaded to {reason['percent']} %")


GENERATION_COLUMNS = ("id", "status", "model", "age", "took", "prompt")


def generation_row(generation: Generation) -> tuple[object, ...]:
    """A generation in a line."""
    status = generation.status
    more = ""
    if status == "processing" and generation.raw["progress"]["steps"]:
        progress = generation.raw["progress"]
        more = f" {progress['step']}/{progress['steps']}"
    elif status == "queued" and generation.raw["queue_position"] is not None:
        more = f" {generation.raw['queue_position'] + 1}."
    took = generation.raw["execution_ms"]
    prompt = " ".join(generation.prompt.split())
    return (
        generation.id,
        Text(status + more, style=COLOURS.get(status, "default")),
        generation.model,
        _age(generation.raw["enqueued_at"]),
        "" if took is None else f"{took / 1000:.1f} s",
        prompt if len(prompt) <= 48 else prompt[:47] + "…",
    )


def _age(seconds: int) -> str:
    passed = max(0, datetime.now(UTC).timestamp() - seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if passed >= length:
            return f"{passed / length:.0f} {unit}"
    return f"{passed:.0f} s"


def facts(pairs: Mapping[str, Any]) -> None:
    """Names and values under each other; those without a value are left out."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        if value not in (None, ""):
            told = escape(str(value))
            out.print(f"[dim]{name:<{width}}[/]  {told}" if out.is_terminal else f"{name}\t{told}")
