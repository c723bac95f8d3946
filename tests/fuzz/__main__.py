"""`make fuzz`: no request that fits the OpenAPI document, or nearly does, is answered with 5xx or a status the document lacks."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from infra import embedded
from tests.conftest import TENANTS, running_stack

CHECKS = "not_a_server_error,status_code_conformance,ignored_auth"
CONFIG = Path(__file__).parent / "schemathesis.toml"

LEFT_OUT = ("/api/events", "/api/ai/batches")
"""An answer that does not end, and bodies of a type that schemathesis cannot write (JSON lines)."""


def _fuzzed(stack: embedded.Stack, tenant: str, seconds: int) -> bool:
    """Whether nothing was found with a tenant's key."""
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "--config-file", str(CONFIG), "run", f"{stack.url}/openapi.json",
        "--header", f"Authorization: Bearer {TENANTS[tenant]}", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing",
        "--max-time", str(seconds), "--request-timeout", "60", "--continue-on-failure", "--warnings", "off",
    ]  # fmt: skip
    for path in LEFT_OUT:
        command += ["--exclude-path", path]
    return subprocess.run(command, check=False).returncode == 0


def main() -> None:
    """Start a stack and try each tenant for a while."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=120, help="for each of two tenants")
    seconds = parser.parse_args().seconds
    # Most of what is asked for is served by nobody: it is not to be waited for.
    own = {
        "DARKROOM_MODELS": '["quick"]',
        "DARKROOM_DEFAULT_MODEL": "quick",
        "DARKROOM_BLOCKING_LIMIT_S": "5",
        "DARKROOM_LONGEST_WAIT_S": "2",
    }
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder), **own) as stack:
        found = [tenant for tenant in ("alice", "bob") if not _fuzzed(stack, tenant, seconds)]
    sys.exit(f"something was found as {', '.join(found)}" if found else 0)


if __name__ == "__main__":
    main()
