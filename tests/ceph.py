"""A second S3 server for the tests: Ceph's Object Gateway with one monitor and one OSD that keeps its objects in memory.

`python -m tests.ceph COMMAND…` runs the command with `TEST_S3` set, which every stack of the tests then uses. Debian's packages
ceph-mon, ceph-osd, ceph-common and radosgw must be installed.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import requests

from tests import web
from tests.conftest import eventually

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = {monitor}
public addr = 127.0.0.1
keyring = {folder}/keyring
mon data = {folder}/monitor
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
run dir = {folder}
log file = {folder}/$name.log
admin socket = {folder}/$name.$pid.asok
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


_KEYS = {
    "mon.": ("mon", "allow *"),
    "client.admin": ("mon", "allow *", "osd", "allow *"),
    "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
}
"""Who takes part, and what each may do."""


@contextlib.contextmanager
def gateway(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Start a cluster that lives in `folder`; gives the gateway's URL, key id and secret."""
    port, monitor = web.free_port(), f"[v2:127.0.0.1:{web.free_port()}]"
    cluster = str(uuid.uuid4())
    (folder / "ceph.conf").write_text(_CONFIGURATION.format(folder=folder, fsid=cluster, monitor=monitor, port=port))
    environment = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}
    url, access, secret = f"http://127.0.0.1:{port}", secrets.token_hex(8), secrets.token_hex(16)

    def ran(*command: str) -> None:
        subprocess.run(command, env=environment, check=True, timeout=60, stdout=subprocess.DEVNULL)

    with contextlib.ExitStack() as closing:

        def started(*command: str) -> None:
            log = closing.enter_context((folder / f"{command[0]}.out").open("w"))
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            closing.callback(_stop, process)

        _keyring(folder / "keyring", ran)
        ran("monmaptool", "--create", "--addv", "a", monitor, "--fsid", cluster, str(folder / "map"))
        (folder / "monitor").mkdir()
        ran("ceph-mon", "--mkfs", "-i", "a", "--monmap", str(folder / "map"), "--keyring", str(folder / "keyring"))
        started("ceph-mon", "-i", "a", "-f")
        disk = str(uuid.uuid4())
        ran("ceph", "osd", "new", disk)
        (folder / "osd").mkdir()
        ran("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        started("ceph-osd", "-i", "0", "-f")
        user = ("--uid=tests", "--display-name=tests", "--access-key", access, "--secret-key", secret)
        ran("radosgw-admin", "user", "create", *user)
        started("radosgw", "-n", "client.admin", "-f")
        eventually(lambda: _answers(url))
        yield url, access, secret


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _keyring(file: Path, ran: Callable[..., None]) -> None:
    ran("ceph-authtool", "--create-keyring", str(file))
    for name, allowed in _KEYS.items():
        caps = [word for kind, what in zip(allowed[::2], allowed[1::2], strict=True) for word in ("--cap", kind, what)]
        ran("ceph-authtool", str(file), "--gen-key", "-n", name, *caps)


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(url, timeout=5).ok
    return False


def main() -> int:
    """Run the command beside a cluster; returns its exit status."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        sys.exit(
            f"Not installed: {', '.join(absent)}. On Debian: apt-get install ceph-mon ceph-osd ceph-common radosgw"
        )
    with tempfile.TemporaryDirectory(prefix="darkroom-ceph-") as folder, gateway(Path(folder)) as found:
        return subprocess.run(sys.argv[1:], env={**os.environ, "TEST_S3": ",".join(found)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
