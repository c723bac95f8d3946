"""Known faults of locked versions fail the check, unless an exception that has not ended is made of them."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from infra import audit
from tests import web

LOCK = "requests==2.19.0 \\\n    --hash=sha256:" + "0" * 64 + "\nidna==3.10 \\\n    --hash=sha256:" + "0" * 64 + "\n"
FAULT = {
    "id": "GHSA-test",
    "aliases": ["CVE-2018-1"],
    "affected": [
        {
            "package": {"name": "requests", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.20.0"}]}],
        }
    ],
}


class _Database(BaseHTTPRequestHandler):
    """Answers as OSV's does: one fault of requests, none of anything else."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"vulns": [FAULT]} if asked["package"]["name"] == "requests" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def database() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Database) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def _audited(tmp_path: Path, database: str, exceptions: str, *options: str) -> subprocess.CompletedProcess[str]:
    lock, listed = tmp_path / "lock.txt", tmp_path / "exceptions.toml"
    lock.write_text(LOCK)
    listed.write_text(exceptions)
    command = [sys.executable, "-m", "infra.audit", "--database", database, "--exceptions", str(listed)]
    return subprocess.run([*command, *options, str(lock)], check=False, capture_output=True, text=True)


def test_a_known_fault_fails_and_is_named_with_the_version_that_mends_it(tmp_path: Path, database: str) -> None:
    done = _audited(tmp_path, database, "")
    assert (done.returncode, done.stdout) == (1, "audit: requests 2.19.0: CVE-2018-1, GHSA-test; mended in 2.20.0\n")


@pytest.mark.parametrize(("days", "status"), [(1, 0), (0, 0), (-1, 1)])
def test_an_exception_holds_until_its_day(tmp_path: Path, database: str, days: int, status: int) -> None:
    until = date.today() + timedelta(days=days)  # noqa: DTZ011  (of this machine, as tests may be)
    exception = f'[CVE-2018-1]\nuntil = {until}\nwhy = "not called here"\n'
    assert _audited(tmp_path, database, exception).returncode == status


def test_a_database_that_does_not_answer_is_said_and_fails_where_that_is_asked_for(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{web.free_port()}/"
    done = _audited(tmp_path, nowhere, "")
    assert done.returncode == 0
    assert "does not answer" in done.stderr
    assert _audited(tmp_path, nowhere, "", "--strict").returncode == 1


def test_an_exception_says_until_when_and_why() -> None:
    with pytest.raises(ValueError, match="GHSA-1"):
        audit.exceptions({"GHSA-1": {"until": date(2027, 1, 1)}}, today=date(2026, 1, 1))
    with pytest.raises(ValueError, match="GHSA-2"):
        audit.exceptions({"GHSA-2": {"why": "x"}}, today=date(2026, 1, 1))
