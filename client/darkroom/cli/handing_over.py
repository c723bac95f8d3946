"""Batches that the service runs by itself: `batches submit`, `list`, `show`, `cancel`, `retry`, `save`."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom import handover, tables
from darkroom.cli import options, printing
from darkroom.cli.account import moment
from darkroom.cli.options import Json, UsageError, service_of
from darkroom.cli.progress import of_many
from darkroom.synchronous import Client

FAILED = 1
LOOK_S, LOOK_AT_MOST_S = 0.5, 5.0
"""Seconds between two looks at a batch that is waited for; twice as many each time."""

group = typer.Typer(no_args_is_help=True, help="Batches that the service runs by itself, up to 10,000 edits each.")
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="A batch's id.")]


def add_to(application: typer.Typer) -> None:
    """Declare the commands."""
    application.add_typer(group, name="batches", rich_help_panel="Editing")


@group.command("submit")
def submit(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(exists=True, help="A .csv or .jsonl file of edits, or a folder of pictures.")
    ],
    name: Annotated[str, typer.Option(help="What it is called in lists.")] = "",
    prompt: Annotated[str | None, typer.Option(help="The instruction of rows that have none.")] = None,
    model: options.Model = options.DEFAULT_MODEL,
    settings: Annotated[list[str] | None, typer.Option("--set", help="A parameter of all rows as name=value.")] = None,
    webhook_url: Annotated[str | None, typer.Option(help="Called once all of it is over.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key makes the same batch; default: the same edits do.")
    ] = None,
    json: Json = False,
) -> None:
    """Hand edits to the service and leave. A row has the fields that `batch` knows, but no `out`."""
    rows = tables.rows_of(source, {"prompt": prompt, "model": model, **options.parameters(settings or [])})
    if not rows:
        raise UsageError(f"{source} has no edits")
    with service_of(context).open() as client:
        batch = handover.submitted(client, rows, name=name, webhook_url=webhook_url, idempotency_key=idempotency_key)
    refused = [line for line in batch["lines"] if line["status"] == "refused"]
    for line in refused:
        printing.err.print(f"{line['custom_id']}: {line['error']['message']}", markup=False)
    printing.as_json(batch) if json else _tell(batch)
    if refused:
        raise typer.Exit(FAILED)


@group.command("list")
def list_(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100)] = 20,
    json: Json = False,
) -> None:
    """List batches, the latest first."""
    with service_of(context).open() as client:
        batches = client.ask("GET", "/api/ai/batches", params={"limit": limit})["batches"]
    if json:
        printing.as_json(batches)
        return
    rows = ((one["batch_id"], one["name"], one["status"], _counted(one), moment(one["created_at"])) for one in batches)
    printing.table(("batch", "name", "status", "lines", "accepted"), rows)


@group.command("show")
def show(context: typer.Context, batch_id: BatchId, json: Json = False) -> None:
    """Tell how far a batch is."""
    with service_of(context).open() as client:
        batch = _read(client, batch_id)
    printing.as_json(batch) if json else _tell(batch)


@group.command("cancel")
def cancel(context: typer.Context, batch_id: BatchId, json: Json = False) -> None:
    """Cancel what is not over."""
    with service_of(context).open() as client:
        batch = client.ask("POST", f"/api/ai/batches/{batch_id}/cancel")
    printing.as_json(batch) if json else _tell(batch)


@group.command("retry")
def retry(context: typer.Context, batch_id: BatchId, json: Json = False) -> None:
    """Queue again what failed, under the same generation ids."""
    with service_of(context).open() as client:
        before = client.ask("GET", f"/api/ai/batches/{batch_id}")
        batch = client.ask("POST", f"/api/ai/batches/{batch_id}/retry")
    if json:
        printing.as_json(batch)
        return
    _tell(batch)
    failed = before["counts"]["failed"]
    printing.out.print(f"{failed} queued again" if failed else "nothing had failed, so nothing is queued again")


@group.command("save")
def save(
    context: typer.Context,
    batch_id: BatchId,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of results and manifest; made if it is not there.")],
    json: Json = False,
) -> None:
    """Wait until a batch is over, and save its results, `manifest.csv` and `manifest.jsonl` in a folder.

    Run it again to go on where it was stopped.
    """
    with service_of(context).open() as client:
        batch = _waited_for(client, batch_id)
        handover.save_results(client, batch, out, of_many)
    printing.as_json(batch) if json else _tell(batch)
    if batch["counts"]["succeeded"] < batch["counts"]["total"]:
        raise typer.Exit(FAILED)


def _waited_for(client: Client, batch_id: str) -> Mapping[str, Any]:
    pause_s = LOOK_S
    while True:
        batch = _read(client, batch_id)
        if batch["status"] in handover.OVER and batch["results"]:
            return batch
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LOOK_AT_MOST_S)


def _read(client: Client, batch_id: str) -> Mapping[str, Any]:
    batch: Mapping[str, Any] = client.ask("GET", f"/api/ai/batches/{batch_id}")
    return batch


def _counted(batch: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in batch["counts"].items() if count and name != "total")


def _tell(batch: Mapping[str, Any]) -> None:
    printing.facts(
        {
            "batch": batch["batch_id"],
            "name": batch["name"],
            "status": batch["status"],
            "lines": f"{batch['counts']['total']}: {_counted(batch)}",
            "accepted": moment(batch["created_at"]),
            "over": moment(batch["completed_at"]),
        }
    )
