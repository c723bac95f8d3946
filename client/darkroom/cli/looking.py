"""`get`, `list` and `watch`: what became of generations."""

import time
from typing import Annotated

import typer
from rich.live import Live

from darkroom.cli import printing
from darkroom.cli.options import Id, Json, service_of
from darkroom.shapes import Generation
from darkroom.synchronous import Client

PANEL = "Editing"


def add_to(application: typer.Typer) -> None:
    """Declare the commands."""
    application.command("get", rich_help_panel=PANEL)(get)
    application.command("status", hidden=True)(get)
    application.command("list", rich_help_panel=PANEL)(list_)
    application.command("watch", rich_help_panel=PANEL)(watch)


def get(
    context: typer.Context,
    generation_id: Id,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is over.")] = False,
    json: Json = False,
) -> None:
    """Tell all about a generation."""
    with service_of(context).open() as client:
        generation = client.wait(generation_id) if wait else client.generation(generation_id)
    if json or not printing.out.is_terminal:
        printing.as_json(generation.raw)
    else:
        _print(generation)
    if wait and not generation.is_succeeded:
        raise typer.Exit(1)


def _print(generation: Generation) -> None:
    raw, size = generation.raw, generation.size
    printing.facts(
        {
            "id": generation.id, "status": generation.status, "model": generation.model, "prompt": generation.prompt,
            "seed": generation.seed, "size": f"{size[0]}x{size[1]}, {raw['fit']}" if size else None,
            "position": raw["queue_position"], "waits for": printing.waiting(raw.get("waiting_for")),
            "ran on": raw["ran_on"] and raw["ran_on"]["worker"],
            "times": raw["timings"] and ", ".join(f"{k.removesuffix('_ms')} {v} ms" for k, v in raw["timings"].items()),
            "cost": None if raw["cost_usd"] is None else f"${raw['cost_usd']:.4f}",
            "error": generation.error_message, "expires": generation.expires_at, "result": generation.result_url,
        }
    )  # fmt: skip


def list_(
    context: typer.Context,
    status: Annotated[str, typer.Option(help="queued, processing, succeeded, failed, cancelled, or all.")] = "all",
    model: Annotated[str | None, typer.Option(help="Of this model alone.")] = None,
    group: Annotated[str | None, typer.Option(help="Of this group alone.")] = None,
    search: Annotated[str | None, typer.Option(help="With these words in the prompt.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at the most.")] = 20,
    json: Json = False,
) -> None:
    """List generations, newest first."""
    with service_of(context).open() as client:
        listed = client.generations(limit=limit, status=status, model=model, group=group, search=search)
        if json:
            printing.as_json_lines(one.raw for one in listed)
        else:
            printing.table(printing.GENERATION_COLUMNS, map(printing.generation_row, listed))


def watch(
    context: typer.Context,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Show the generations that are under way until Ctrl-C."""
    with service_of(context).open() as client, Live(console=printing.out, refresh_per_second=4, screen=False) as live:
        while True:
            live.update(
                printing.drawn_table(printing.GENERATION_COLUMNS, map(printing.generation_row, _present(client)))
            )
            time.sleep(every)


def _present(client: Client) -> list[Generation]:
    unfinished = list(client.generations(limit=30))
    over = client.generations(limit=max(0, 10 - len(unfinished)), status="all") if len(unfinished) < 10 else iter(())
    known = {one.id for one in unfinished}
    return [*unfinished, *(one for one in over if one.id not in known)]
