"""`batch`: many edits from a table, a list or a folder, resumable after whatever stops it."""

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from darkroom import batches, tables
from darkroom.asynchronous import AsyncClient
from darkroom.cli import options, printing
from darkroom.cli.options import Json, UsageError, service_of
from darkroom.cli.progress import of_many

FAILED = 1
TOLD = 20
"""Rows of which it is told why they came to nothing; the manifest has all."""


def add_to(application: typer.Typer) -> None:
    """Declare the command."""
    application.command(rich_help_panel="Editing")(batch)


def batch(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(exists=True, help="A .csv or .jsonl file of edits, or a folder of pictures.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of results and manifest; made if it is not there.")],
    prompt: Annotated[str | None, typer.Option(help="The instruction of rows that have none.")] = None,
    model: options.Model = options.DEFAULT_MODEL,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, max=64, help="How many at a time.")] = 8,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A parameter of all rows as name=value.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run those again that failed before.")] = False,
    json: Json = False,
) -> None:
    """Run many edits. Run it again to go on where it was stopped: nothing runs twice.

    A row has `image` and `prompt`, and any of `custom_id`, `model`, `out` and the model's parameters. Results, and
    `manifest.jsonl`, which says what became of each row, go to the folder; a `manifest.csv` is written at the end.
    """
    rows = tables.rows_of(source, {"prompt": prompt, "model": model, **options.parameters(settings or [])})
    if not rows:
        raise UsageError(f"{source} has no edits")
    if source.is_dir() and out.resolve() == source.resolve():
        raise UsageError(f"--out: {out} is the folder of the pictures; results would be edited by the next run")
    if (picture := tables.replaced(rows, out)) is not None:
        raise UsageError(f"--out: a result could be saved over {picture}")
    url, key, _ = service_of(context).credentials()
    out.mkdir(parents=True, exist_ok=True)
    with batches.Manifest.opened(out) as manifest:
        todo = [row for row in rows if manifest.is_open(row, retry_failed=retry_failed)]
        with of_many(len(todo)) as done:
            try:
                asyncio.run(_run(url, key, todo, manifest, concurrency, done))
            except KeyboardInterrupt:
                printing.err.print("interrupted; run the same again to go on")
                raise
        manifest.write_csv(rows)
        outcomes = Counter(manifest.outcome(row) for row in rows)
    if json:
        printing.as_json({"rows": len(rows), "outcomes": outcomes, "manifest": str(out / tables.MANIFEST)})
    else:
        for row in [row for row in rows if manifest.outcome(row) not in ("succeeded", "open")][:TOLD]:
            printing.err.print(f"{row.custom_id}: {manifest.outcome(row)}: {manifest.reason(row)}", markup=False)
        told = ", ".join(f"{number} {name}" for name, number in sorted(outcomes.items()))
        printing.out.print(
            f"{len(rows)} {'row' if len(rows) == 1 else 'rows'}: {told}; see {out / 'manifest.csv'}", markup=False
        )
    sys.stdout.flush()
    if set(outcomes) != {"succeeded"}:
        raise typer.Exit(FAILED)


async def _run(
    url: str, key: str, rows: list[tables.Row], manifest: batches.Manifest, concurrency: int, done: batches.Done
) -> None:
    async with AsyncClient(url, key) as client:
        await batches.run(client, rows, manifest, concurrency=concurrency, done=done)
