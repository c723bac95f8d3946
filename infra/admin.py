"""`darkroom-admin`: what an operator does by hand, to the ledger above all.

It talks to Redis, so it needs `REDIS_URL` or the embedded stack's data folder, not an API key.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import redis
from pydantic import SecretStr, ValidationError

from infra import admin_keys, backup, certificates, stack_options
from storage import connections
from storage.contracts import errors, submissions
from storage.ledger import access, control, recovery
from storage.ledger.execution import RedisLedger, Replicas
from storage.settings import StoreSettings, reason

QUEUE_TTL_S = 24 * 3600.0
SHOWN = ("id", "tenant", "model", "status", "error_code", "attempts", "losses", "phase", "worker", "error_message")


def main() -> None:
    """Parse arguments and run one command."""
    parser = argparse.ArgumentParser(prog="darkroom-admin", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("parked", help="list generations that lost their workers or used up their attempts")
    for name, text in (
        ("show", "print a parked generation's record; the prompt only with --prompt"),
        ("retry", "queue a parked generation again"),
        ("drop", "take a parked generation off the list; it stays failed"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("generation_id")
        if name == "show":
            command.add_argument("--prompt", action="store_true")
    for name, text in (
        ("pause", "have nothing of a model, a tenant or a queue claimed; what runs goes on, what comes is accepted"),
        ("resume", "have it claimed again"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("kind", choices=("model", "tenant", "queue"))
        command.add_argument("name")
    commands.add_parser("paused", help="list what is paused")
    made = commands.add_parser("certificate", help="make a development certificate to sign results with")
    made.add_argument("folder", type=Path)
    for name, text in (
        (
            "backup",
            "write all that Redis holds to a file, as it is at one moment; writes wait for as long as that takes",
        ),
        ("restore", "fill an empty Redis from such a file, before the service is started"),
    ):
        commands.add_parser(name, help=text).add_argument("file", type=Path)
    admin_keys.add_commands(commands)
    arguments = parser.parse_args()
    if arguments.command == "certificate":
        try:
            certificates.make(arguments.folder)
        except OSError as exc:
            sys.exit(f"darkroom-admin: {arguments.folder} is no folder that can be written to: {exc.strerror}")
        print(f"DARKROOM_SIGNING_CERTIFICATE={arguments.folder / certificates.CERTIFICATE}")
        print(f"DARKROOM_SIGNING_KEY={arguments.folder / certificates.KEY}")
        return
    try:
        settings = _settings(os.environ)
        if arguments.command in _BACKUP:
            # One key may hold a million entries.
            settings = settings.model_copy(update={"redis_timeout_s": float(backup.LONGEST_S)})
        with contextlib.closing(connections.connect(settings)) as connection:
            if arguments.command in _BACKUP:
                print(f"{_BACKUP[arguments.command](connection, arguments.file)} keys")
            else:
                _RUN.get(arguments.command, _run)(RedisLedger(connection, Replicas.of(settings)), arguments)
    except errors.StoreUnavailableError as exc:
        at = urlsplit(settings.redis_url.get_secret_value()).netloc.rpartition("@")[2]
        sys.exit(
            f"darkroom-admin: {exc}: {at}, as REDIS_URL names it or a stack's folder (DARKROOM_DATA_DIR, default .data)"
        )
    except (errors.DarkroomError, backup.BackupError, redis.RedisError, OSError) as exc:
        sys.exit(f"darkroom-admin: {exc}")
    except ValidationError as exc:
        sys.exit(f"darkroom-admin: {reason(exc)}")
    except (ValueError, KeyError) as exc:
        sys.exit(f"darkroom-admin: REDIS_URL or {stack_options.KEPT} cannot be used: {exc}")


def _settings(environment: Mapping[str, str]) -> StoreSettings:
    kept = Path(environment.get("DARKROOM_DATA_DIR", ".data")) / stack_options.KEPT
    if "REDIS_URL" not in environment and kept.exists():
        return StoreSettings(REDIS_URL=SecretStr(stack_options.redis_url(json.loads(kept.read_text()))))
    return StoreSettings()


def _edit(record: Mapping[str, str]) -> dict[str, object]:
    """Without the URLs that were signed for somebody's own bucket."""
    return submissions.Submission.from_record(record).edit.model_dump(mode="json", exclude={"deliver"})


def _run(ledger: RedisLedger, arguments: argparse.Namespace) -> None:
    parked = {record["id"]: record for record in ledger.run(recovery.parked())}
    if arguments.command == "parked":
        for record in parked.values():
            failed_at = datetime.fromtimestamp(int(record["completed_ms"]) / 1000, UTC)
            what = f"{record['error_code']} while {record.get('phase', 'queued')}, attempt {record['attempts']}"
            print(f"{record['id']}  {failed_at:%Y-%m-%d %H:%M:%S}  {record['tenant']}  {record['model']}  {what}")
        return
    if arguments.generation_id not in parked:
        sys.exit(f"darkroom-admin: {arguments.generation_id} is not parked")
    if arguments.command == "show":
        record = parked[arguments.generation_id]
        shown = {name: record[name] for name in SHOWN if name in record}
        print(json.dumps(shown | ({"edit": _edit(record)} if arguments.prompt else {}), indent=2))
    else:
        if not ledger.run(recovery.unpark(arguments.generation_id, arguments.command, queue_ttl_s=QUEUE_TTL_S)):
            sys.exit(f"darkroom-admin: {arguments.generation_id} is parked no more")
        print(f"{arguments.generation_id}: {'queued again' if arguments.command == 'retry' else 'taken off the list'}")


def _keys(ledger: RedisLedger, arguments: argparse.Namespace) -> None:
    admin_keys.run(ledger, arguments, _settings(os.environ).read_catalog())


def _pause(ledger: RedisLedger, arguments: argparse.Namespace) -> None:
    name = arguments.name
    known = _settings(os.environ).read_catalog()
    if arguments.kind == "model" and (arguments.command == "pause" or known.has(name)):
        name = known.name_of(name)
    if arguments.kind == "queue" and arguments.command == "pause" and name not in known.queues:
        sys.exit(
            f"darkroom-admin: {name} is no queue: edits.MODEL.GPU_TYPE, edits.MODEL.any or either with .REGION behind it"
        )
    if arguments.kind == "tenant" and arguments.command == "pause" and not ledger.run(access.keys_of(name)):
        print(f"note: no key was made for tenant {name}; keys of DARKROOM_API_KEYS are not looked at", file=sys.stderr)
    change = control.pause if arguments.command == "pause" else control.resume
    told = "paused" if arguments.command == "pause" else "resumed"
    print(f"{arguments.kind} {name}: {told if ledger.run(change(arguments.kind, name)) else f'was {told} already'}")


def _paused(ledger: RedisLedger, arguments: argparse.Namespace) -> None:
    paused = ledger.run(control.paused())
    for what, at_ms in sorted(paused.items()):
        kind, _, name = what.partition(":")
        print(f"{kind} {name}  since {datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}")
    if not paused:
        print("nothing is paused")


_BACKUP = {"backup": backup.save, "restore": backup.restore}
_RUN = {"keys": _keys, "audit": _keys, "pause": _pause, "resume": _pause, "paused": _paused}


if __name__ == "__main__":
    main()
