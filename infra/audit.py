"""`python -m infra.audit`: known faults of the versions that the images install, as the OSV database has them (by pip-audit).

`infra/locks/exceptions.toml` lists what is let through, until when and why. Where the database does not answer, nothing is
said of the versions and the check goes on, unless with `--strict`.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

LOCKS = Path(__file__).parent / "locks"
EXCEPTIONS = LOCKS / "exceptions.toml"
DATABASE = "https://api.osv.dev/v1/query"
UNANSWERED = ("ConnectionError", "Timeout", "HTTPError", "ServiceError")
"""What pip-audit says of where a database does not answer."""
LIMIT_S = 5
"""For one answer of the database."""


def main() -> None:
    """Check the locks. Exits with 1 for what is known and no exception is made of, and with `--strict` for what is not known."""
    parser = argparse.ArgumentParser(prog="python -m infra.audit", description=__doc__.partition("\n")[0])
    parser.add_argument("--strict", action="store_true", help="fail where the database does not answer")
    parser.add_argument("--database", default=DATABASE)
    parser.add_argument("--exceptions", type=Path, default=EXCEPTIONS)
    parser.add_argument("locks", nargs="*", type=Path, default=sorted(LOCKS.glob("*.txt")))
    arguments = parser.parse_args()
    faults, is_complete = _known_faults(arguments.locks, arguments.database)
    excepted = exceptions(tomllib.loads(arguments.exceptions.read_text()), today=datetime.now(UTC).date())
    left = [fault for fault in faults if excepted.isdisjoint(fault["names"])]
    for fault in left:
        print(f"audit: {fault['package']} {fault['version']}: {', '.join(fault['names'])}; mended in {fault['mended']}")
    if not is_complete:
        print(f"audit: {arguments.database} does not answer; not all versions were checked", file=sys.stderr)
    sys.exit(1 if left or (arguments.strict and not is_complete) else 0)


def exceptions(listed: Mapping[str, Any], *, today: date) -> frozenset[str]:
    """Ids of faults that are let through today. Raises `ValueError` for an exception without an end or a reason."""
    valid = set()
    for id_, exception in listed.items():
        if not isinstance(exception.get("until"), date) or not exception.get("why"):
            raise ValueError(f"{id_}: an exception says until when it holds, and why")
        if today <= exception["until"]:
            valid.add(id_)
    return frozenset(valid)


def _known_faults(locks: Iterable[Path], database: str) -> tuple[Sequence[Mapping[str, Any]], bool]:
    """Each once, and whether the database answered for all locks. Exits where the audit itself fails."""
    faults: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for lock in locks:
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip", "--format", "json"]
        options = ["--vulnerability-service", "osv", "--osv-url", database, "--timeout", str(LIMIT_S)]
        done = subprocess.run(
            [*command, *options, "--progress-spinner", "off"], check=False, capture_output=True, text=True
        )
        try:
            report = json.loads(done.stdout)
        except ValueError:
            if not any(word in done.stderr for word in UNANSWERED):
                sys.exit(f"audit: pip-audit failed:\n{done.stderr[-2000:]}")
            return list(faults.values()), False
        for package in report["dependencies"]:
            for fault in package.get("vulns", ()):
                faults[package["name"], package["version"], fault["id"]] = {
                    "package": package["name"],
                    "version": package["version"],
                    "names": sorted({fault["id"], *fault["aliases"]}),
                    "mended": ", ".join(fault["fix_versions"]) or "no version",
                }
    return list(faults.values()), True


if __name__ == "__main__":
    main()
