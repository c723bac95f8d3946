"""What a key's tenant used, its webhooks, and for operators the keys of all: `usage`, `webhooks`, `keys`."""

import csv
import re
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from darkroom.cli import printing
from darkroom.cli.options import Id, Json, UsageError, parameters, service_of

PANEL = "Account"

webhooks = typer.Typer(no_args_is_help=True, help="What became of webhooks, their secrets, and a test call.")
keys = typer.Typer(no_args_is_help=True, help="API keys of any tenant; the key in use needs the scope `admin`.")


def add_to(application: typer.Typer) -> None:
    """Declare the commands."""
    application.command(rich_help_panel=PANEL)(usage)
    application.add_typer(webhooks, name="webhooks", rich_help_panel=PANEL)
    application.add_typer(keys, name="keys", rich_help_panel=PANEL)


def usage(
    context: typer.Context,
    month: Annotated[str | None, typer.Option(help="Such as 2026-11; default: this one.")] = None,
    json: Json = False,
) -> None:
    """Tell what this key's tenant used in a month; comma-separated values where standard output is no terminal."""
    if month is not None and not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise UsageError(f"--month is such as 2026-11; got {month!r}")
    with service_of(context).open() as client:
        used = client.usage(month)
    columns = ("model", "generations", "megapixels", "gpu_seconds", "cost_usd")
    rows = [(used["month"], *(one[name] for name in columns)) for one in used["models"]]
    if json:
        printing.as_json(used)
    elif printing.out.is_terminal:
        printing.table(("month", *columns), rows)
        budget = "no budget" if used["budget_usd"] is None else f"a budget of ${used['budget_usd']:.2f}"
        printing.note(f"${used['spent_usd']:.4f} spent, ${used['reserved_usd']:.4f} reserved, {budget}")
    else:
        writer = csv.writer(sys.stdout)
        writer.writerow(("month", *columns))
        writer.writerows(rows)


def moment(seconds: float | None) -> str:
    """Seconds since 1970 as date and time of UTC."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


@webhooks.command("list")
def list_webhooks(
    context: typer.Context,
    generation_id: Annotated[str | None, typer.Argument(metavar="ID", help="Of this generation alone.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000)] = 20,
    json: Json = False,
) -> None:
    """List the last calls, the latest first."""
    query: dict[str, Any] = {"limit": limit} | ({"generation_id": generation_id} if generation_id else {})
    with service_of(context).open() as client:
        calls = client.ask("GET", "/api/ai/webhooks", params=query)["calls"]
    if json:
        printing.as_json(calls)
        return
    columns = ("at", "generation", "moment", "attempt", "outcome", "ms", "next")
    names = ("generation_id", "moment", "attempt", "outcome", "duration_ms")
    printing.table(
        columns, ((moment(one["at"]), *(one[name] for name in names), moment(one["next_at"])) for one in calls)
    )


@webhooks.command("ping")
def ping_webhook(context: typer.Context, url: str, json: Json = False) -> None:
    """Call a URL with a signed test message."""
    with service_of(context).open() as client:
        answer = client.ask("POST", "/api/ai/webhooks/ping", json={"url": url})
    printing.as_json(answer) if json else printing.out.print(f"{answer['outcome']}, {answer['duration_ms']} ms")
    if not 200 <= (answer["status"] or 0) < 300:
        raise typer.Exit(1)


@webhooks.command("redeliver")
def redeliver_webhook(context: typer.Context, generation_id: Id) -> None:
    """Call the webhook of a finished generation again."""
    with service_of(context).open() as client:
        client.ask("POST", f"/api/ai/webhooks/{generation_id}/redeliver")
    printing.out.print(f"{generation_id}: it is called soon", markup=False)


@webhooks.command("secret")
def webhook_secret(
    context: typer.Context,
    rotate: Annotated[bool, typer.Option("--rotate", help="Have another one from now on.")] = False,
    overlap: Annotated[float, typer.Option(min=0, help="Hours that the present one goes on.")] = 24,
    json: Json = False,
) -> None:
    """Print what webhooks are signed with, the present secret first."""
    with service_of(context).open() as client:
        if rotate:
            answer = client.ask("POST", "/api/ai/webhooks/secret/rotate", json={"overlap_s": overlap * 3600})
        else:
            answer = client.ask("GET", "/api/ai/webhooks/secret")
    if json:
        printing.as_json(answer)
    else:
        printing.table(("secret", "until"), ((one["secret"], moment(one["expires_at"])) for one in answer["secrets"]))


@keys.command("list")
def list_keys(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Argument(help="Default: all.")] = None,
    json: Json = False,
) -> None:
    """List keys, without the keys themselves."""
    with service_of(context).open() as client:
        keys = client.ask("GET", "/api/admin/keys", params={"tenant": tenant} if tenant else {})["keys"]
    if json:
        printing.as_json(keys)
        return
    rows = (
        (
            one["id"],
            one["tenant"],
            ",".join(one["scopes"]),
            one["label"],
            moment(one["last_used_at"]),
            moment(one["expires_at"]),
        )
        for one in keys
    )
    printing.table(("id", "tenant", "scopes", "label", "last used", "expires"), rows)


@keys.command("create")
def create_key(
    context: typer.Context,
    tenant: str,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    scopes: Annotated[str, typer.Option(help="Of submit, read, models, admin; with commas.")] = "submit,read",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other right as name=value, such as per_minute=60.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a key and print it, once."""
    request = {"tenant": tenant, "label": label, "scopes": [one.strip() for one in scopes.split(",") if one.strip()]}
    with service_of(context).open() as client:
        made = client.ask("POST", "/api/admin/keys", json={**request, **parameters(settings or [])})
    printing.as_json(made) if json else printing.out.print(made["key"], markup=False)


@keys.command("rotate")
def rotate_key(
    context: typer.Context,
    key_id: str,
    overlap: Annotated[float, typer.Option(min=0, help="Hours that the first one goes on.")] = 24,
    json: Json = False,
) -> None:
    """Make another key that allows the same, and have the first one end."""
    with service_of(context).open() as client:
        made = client.ask("POST", f"/api/admin/keys/{key_id}/rotate", json={"overlap_s": overlap * 3600})
    printing.as_json(made) if json else printing.out.print(made["key"], markup=False)


@keys.command("revoke")
def revoke_key(context: typer.Context, key_id: str) -> None:
    """End a key within a second."""
    with service_of(context).open() as client:
        client.ask("DELETE", f"/api/admin/keys/{key_id}")
    printing.out.print(f"{key_id}: revoked", markup=False)
