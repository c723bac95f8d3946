"""`darkroom-admin keys …`: make, list, rotate and revoke API keys while the service runs."""

import argparse
import sys
import time
from datetime import UTC, datetime

from pydantic import ValidationError

from storage.contracts import access, catalog
from storage.ledger import access as ledger_access
from storage.ledger import call

BY = "darkroom-admin"
DAY_S = 86_400
LONGEST_OVERLAP_H = access.LONGEST_OVERLAP_S // 3600


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `keys` and what stands below it."""
    keys = commands.add_parser("keys", help="make, list, rotate and revoke API keys").add_subparsers(
        dest="keys_command", required=True
    )
    make = keys.add_parser("create", help="make a key and print it, once")
    make.add_argument("tenant")
    make.add_argument("--label", default="", help="what it is for")
    make.add_argument(
        "--scopes", default=",".join(access.USUAL_SCOPES), help=f"of {', '.join(access.SCOPES)}; with commas"
    )
    make.add_argument("--models", default="", help="models that it may use, with commas; default: all")
    make.add_argument("--gpu-types", default="", help="GPU types that it may use, with commas; default: all")
    make.add_argument("--priorities", default="", help="high, normal, low: those it may submit with; default: all")
    make.add_argument("--unfiltered", action="store_true", help="it may switch filters off for a request")
    make.add_argument("--budget-usd", type=float, help="nothing is accepted once the tenant's month could come to more")
    make.add_argument("--per-minute", type=int, help="generations in a minute at the most")
    make.add_argument("--mb-per-minute", type=int, help="megabytes of pictures sent along in a minute at the most")
    make.add_argument("--retention-days", type=float, help="everything about a generation is erased after these")
    make.add_argument(
        "--no-store", action="store_true", help="everything about a generation is erased after ten minutes"
    )
    make.add_argument("--expires-in-days", type=float, help="default: never")
    listed = keys.add_parser("list", help="list keys, without the keys themselves")
    listed.add_argument("tenant", nargs="?")
    rotate = keys.add_parser("rotate", help="make another key that allows the same, and have the first one end")
    rotate.add_argument("key_id")
    rotate.add_argument(
        "--overlap-hours", type=_overlap, default=24, help="how long the first one goes on, up to 720; default 24"
    )
    keys.add_parser("revoke", help="end a key within a second").add_argument("key_id")
    commands.add_parser("audit", help="what was done to keys, and by whom")


def _overlap(text: str) -> float:
    hours = float(text)
    if not 0 <= hours <= LONGEST_OVERLAP_H:
        raise argparse.ArgumentTypeError(f"must be from 0 to {LONGEST_OVERLAP_H} hours; got {text}")
    return hours


def run(ledger: call.Ledger, arguments: argparse.Namespace, known: catalog.Catalog) -> None:
    """Run one of them, and say which models are not `known`. Raises `errors.DarkroomError`."""
    if arguments.command == "audit":
        for entry in ledger.run(ledger_access.audit()):
            print(f"{_moment(entry.at_ms)}  {entry.action:<8} {entry.key_id}  {entry.tenant}  by {entry.by}")
    elif arguments.keys_command == "create":
        request = _asked(arguments)
        for name in request.models:
            if not known.has(name):
                print(f"note: no model {name} in the catalog that DARKROOM_CATALOG names here", file=sys.stderr)
        key, token = access.issued(request, now_ms=_now_ms())
        ledger.run(ledger_access.issue(key, by=BY))
        _show(key, token)
    elif arguments.keys_command == "rotate":
        overlap_s = arguments.overlap_hours * 3600
        before = ledger.run(ledger_access.find(arguments.key_id))
        key, token = ledger_access.rotation(before, now_ms=_now_ms())
        ledger.run(ledger_access.rotate(arguments.key_id, key, by=BY, after_s=overlap_s))
        _show(key, token)
    elif arguments.keys_command == "revoke":
        ledger.run(ledger_access.revoke(arguments.key_id, by=BY))
        print(f"{arguments.key_id}: revoked")
    else:
        for key in ledger.run(ledger_access.keys_of(arguments.tenant)):
            print(_line(key))


def _show(key: access.ApiKey, token: str) -> None:
    # Alone on standard output, so that it can be put where it belongs without being seen.
    print(_line(key), file=sys.stderr)
    print(token)


def _asked(arguments: argparse.Namespace) -> access.KeyRequest:
    days = arguments.expires_in_days
    try:
        return access.KeyRequest.model_validate(
            {
                "tenant": arguments.tenant,
                "label": arguments.label,
                "scopes": _words(arguments.scopes),
                "models": _words(arguments.models),
                "gpu_types": _words(arguments.gpu_types),
                "priorities": _words(arguments.priorities),
                "unfiltered": arguments.unfiltered,
                "budget_usd": arguments.budget_usd,
                "per_minute": arguments.per_minute,
                "mb_per_minute": arguments.mb_per_minute,
                "retention_days": arguments.retention_days,
                "no_store": arguments.no_store,
                "expires_in_s": None if days is None else days * DAY_S,
            }
        )
    except ValidationError as exc:
        first = exc.errors()[0]
        sys.exit(f"darkroom-admin: {first['loc'][0]}: {first['msg']}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _line(key: access.ApiKey) -> str:
    ends = "" if key.expires_ms is None else f"  until {_moment(key.expires_ms)}"
    used = "never used" if key.used_ms is None else f"used {_moment(key.used_ms)}"
    limits = key.rights.model_dump(exclude={"scopes"}, exclude_defaults=True)
    told = "".join(
        f"  {name}={','.join(value) if isinstance(value, tuple) else value}" for name, value in limits.items()
    )
    return f"{key.id}  {key.tenant}  {','.join(key.rights.scopes)}{told}  {used}{ends}  {key.label}".rstrip()


def _moment(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _now_ms() -> int:
    return round(time.time() * 1000)
