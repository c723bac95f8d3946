"""Joins the commands, and turns whatever goes wrong into a sentence and an exit code."""

import io
import logging
import os
import sys
from typing import Annotated

import typer
import typer.exceptions
from rich.markup import escape

from darkroom import faults
from darkroom.cli import account, batching, doctoring, editing, handing_over, looking, targets
from darkroom.cli.options import Service, UsageError
from darkroom.cli.printing import err

FAILED, USAGE, REFUSED, UNREACHABLE, CANCELLED, INTERRUPTED = 1, 2, 3, 4, 5, 130
"""Exit codes: an edit failed; the command line is wrong; the service refused; it cannot be reached or has a fault of its own; an
edit was cancelled; Ctrl-C."""

application = typer.Typer(
    name="darkroom",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Edit pictures with a Darkroom service.",
    epilog="Exit codes: 1 an edit failed, 2 wrong usage, 3 refused, 4 unreachable, 5 cancelled, 130 interrupted.",
)


@application.callback()
def options(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="The service's address; default: DARKROOM_URL.")] = None,
    key: Annotated[str | None, typer.Option(help="An API key; default: DARKROOM_API_KEY.")] = None,
    profile: Annotated[str | None, typer.Option(help="A profile of the configuration file.")] = None,
) -> None:
    """Which service the commands talk to."""
    context.obj = Service(url, key, profile)


for module in (editing, batching, handing_over, looking, targets, account, doctoring):
    module.add_to(application)


def main() -> None:
    """Run the command line."""
    logging.basicConfig(level=logging.WARNING, format="darkroom: %(message)s")
    # What a terminal cannot show is no reason to stop.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = application(standalone_mode=False)
    except typer.Exit as exc:
        code = exc.exit_code
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except typer.exceptions.TyperException as exc:
        context = getattr(exc, "ctx", None)
        command = context.command_path if context else "darkroom"
        code = _told(UsageError(f"{exc.format_message()} See {command} --help."))
    except BrokenPipeError:
        # The reader of the pipe has seen enough, `head` for one. Nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (faults.DarkroomError, UsageError, OSError, TypeError, ValueError) as exc:
        code = _told(exc)
    # Typer makes an exit code of Ctrl-C itself.
    if code == INTERRUPTED:
        err.print("darkroom: interrupted")
    sys.exit(code if isinstance(code, int) else 0)


def _told(exc: Exception) -> int:
    """Say what went wrong and what to do; the exit code."""
    cure = ""
    code = USAGE
    if isinstance(exc, faults.UnreachableError):
        cure, code = "is it running? `make up` starts one here; --url or DARKROOM_URL names another", UNREACHABLE
    elif isinstance(exc, faults.EditFailedError):
        cure, code = (
            f"darkroom get {exc.generation.id} tells more, darkroom retry {exc.generation.id} tries again",
            FAILED,
        )
    elif isinstance(exc, faults.CancelledError):
        code = CANCELLED
    elif isinstance(exc, faults.ApiError):
        code = REFUSED if isinstance(exc, faults.RefusedError) else UNREACHABLE
        cure = _CURES.get(exc.code, "")
        if not cure and exc.status >= 500 and exc.request_id:
            cure = f"the service's log has more under request_id {exc.request_id}"
    message = f"{exc.filename}: {exc.strerror}" if isinstance(exc, OSError) and exc.filename else str(exc)
    err.print(f"[bold red]darkroom:[/] {escape(message)}", markup=True, soft_wrap=True)
    if cure:
        err.print(f"  {cure}", style="dim", markup=False, soft_wrap=True)
    return code


_CURES = {
    "unauthenticated": "the key is unknown, expired or revoked: see --key, DARKROOM_API_KEY or the profile",
    "forbidden": "another key may: its scopes, models and GPU types are listed by `darkroom-admin keys list`",
    "model_not_found": "`darkroom models` lists what there is",
    "budget_exceeded": "`darkroom usage` shows the month; an operator sets budgets",
    "too_many_active": "wait until some are over, or `darkroom cancel` them",
}
