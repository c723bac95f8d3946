"""`doctor` and `open`: whether everything is there, and the page."""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import httpx
import typer

from darkroom import faults
from darkroom.cli import printing
from darkroom.cli.options import Json, service_of
from darkroom.synchronous import Client

PANEL = "Setting up"
MOST_SKEW_S = 60.0


def add_to(application: typer.Typer) -> None:
    """Declare the commands."""
    application.command(rich_help_panel=PANEL)(doctor)
    application.command("open", rich_help_panel=PANEL)(open_)


class _Examination:
    """Checks in order; what needs another one that failed is not tried."""

    def __init__(self) -> None:
        self.findings: list[tuple[str, bool, str]] = []

    def check(self, name: str, look: Callable[[], str]) -> bool:
        """Run a check, which returns what it found; a fault is a finding, too."""
        try:
            told, is_well = look(), True
        except (faults.DarkroomError, httpx.HTTPError, ValueError) as exc:
            told, is_well = str(exc), False
        self.findings.append((name, is_well, told))
        return is_well


def doctor(context: typer.Context, json: Json = False) -> None:
    """Check what is reachable, and say what to do about what is not."""
    service = service_of(context)
    url, _, source = service.credentials()
    examination = _Examination()
    examination.check("service", lambda: f"{url}, from {source}")
    with service.open() as client:
        if examination.check("reachable", lambda: _reachable(url)):
            are_there = examination.check("stores", lambda: _ready(url))
            examination.check("clock", lambda: _clock(url))
            # Keys are looked up in the stores.
            if are_there and examination.check("key", lambda: _key(client)):
                examination.check("workers", lambda: _workers(client))
    examination.check("version", lambda: f"client {_version()}")
    findings = examination.findings
    if json:
        printing.as_json([{"check": name, "ok": is_well, "found": told} for name, is_well, told in findings])
    else:
        for name, is_well, told in findings:
            printing.out.print(f"{'[green]ok[/]  ' if is_well else '[red]bad[/] '} {name:<10} {told}")
    if not all(is_well for _, is_well, _ in findings):
        raise typer.Exit(1)


def _reachable(url: str) -> str:
    began = time.monotonic()
    try:
        httpx.get(f"{url}/health/live", timeout=5).raise_for_status()
    except httpx.HTTPError as exc:
        raise ValueError(f"{url} does not answer ({exc}): is it running? `make up` starts one here") from None
    return f"in {(time.monotonic() - began) * 1000:.0f} ms"


def _ready(url: str) -> str:
    answer = httpx.get(f"{url}/health/ready", timeout=10)
    if answer.status_code != 200:
        raise ValueError("Redis or the object store does not answer: see the API's log")
    return "Redis and the object store answer"


def _clock(url: str) -> str:
    answer = httpx.get(f"{url}/health/live", timeout=5)
    skew = time.time() - parsedate_to_datetime(answer.headers["date"]).timestamp()
    if abs(skew) > MOST_SKEW_S:
        raise ValueError(f"this clock is {skew:+.0f} s off the service's: signed URLs may be refused; set it by NTP")
    return "in step"


def _key(client: Client) -> str:
    usage = client.usage()
    budget = "" if usage["budget_usd"] is None else f", of a budget of ${usage['budget_usd']:.2f}"
    return f"known; ${usage['spent_usd']:.4f} spent in {usage['month']}{budget}"


def _workers(client: Client) -> str:
    workers = client.fleet()
    if not workers:
        raise ValueError("none is there: edits wait until one comes; start `python -m workers.gpu`, or see its log")
    warm = {model for one in workers for model, state in one["models"].items() if state["state"] == "warm"}
    return f"{len(workers)}, with {', '.join(sorted(warm)) or 'no model'} loaded"


def _version() -> str:
    try:
        return version("darkroom-client")
    except PackageNotFoundError:
        return "from a checkout"


def open_(
    context: typer.Context,
    link: Annotated[bool, typer.Option("--link", help="Print the link, and open nothing.")] = False,
) -> None:
    """Open the page in a browser, signed in by a link that works once."""
    with service_of(context).open() as client:
        url = f"{client.url}/#sign-in={client.token('page')}"
    # A machine without a browser says nothing of it.
    printing.out.print(url, markup=False)
    if not link:
        typer.launch(url)
