"""Both stores are lost and restored: what was acknowledged before the backup is there, what was unfinished runs again."""

import contextlib
import gzip
import shutil
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from infra import backup, embedded
from storage import connections, keys
from storage.objects import Objects
from storage.settings import StoreSettings
from tests.conftest import eventually
from tests.faults.conftest import SLEEPERS, Victim, supervised
from tests.service.conftest import darkroom_admin


@pytest.fixture
def stores(stack: embedded.Stack) -> Iterator[dict[str, str]]:
    """An empty database and a bucket of the test's own, at the servers of another stack."""
    store = stack.store
    bucket = f"backup-{uuid.uuid4().hex[:8]}"
    environment = {
        "REDIS_URL": store.redis_url.get_secret_value().removesuffix("/0") + "/9",
        "S3_ENDPOINT_URL": str(store.s3_endpoint_url),
        "S3_BUCKET": bucket,
        "S3_ACCESS_KEY_ID": str(store.s3_access_key_id),
        "S3_SECRET_ACCESS_KEY": store.s3_secret_access_key.get_secret_value() if store.s3_secret_access_key else "",
    }
    yield environment
    with contextlib.closing(connections.connect(StoreSettings(**environment, redis_timeout_s=10))) as connection:
        connection.flushdb()


@pytest.fixture
def connection(stores: dict[str, str]) -> Iterator[redis.Redis]:
    with contextlib.closing(connections.connect(StoreSettings(**stores, redis_timeout_s=10))) as one:
        yield one


@contextmanager
def _service(folder: Path, stores: dict[str, str]) -> Iterator[Victim]:
    # The same secret, which an operator keeps beside the backup.
    own = {**SLEEPERS, **stores, "DARKROOM_WORKERS": "2", "DARKROOM_SECRET": "the same before and after"}
    with supervised(folder, **own) as victim:
        yield victim


def _copied(stores: dict[str, str], source: str, target: str) -> None:
    """As an operator copies a bucket."""
    remote = (
        f":s3,provider=Other,endpoint='{stores['S3_ENDPOINT_URL']}',access_key_id={stores['S3_ACCESS_KEY_ID']},"
        f"secret_access_key={stores['S3_SECRET_ACCESS_KEY']}:{stores['S3_BUCKET']}"
    )
    places = [remote if place == "bucket" else place for place in (source, target)]
    rclone = str(Path(sys.executable).parent / "rclone")
    subprocess.run([rclone, "copy", "--config", "/dev/null", *places], check=True, capture_output=True)


def test_what_was_acknowledged_survives_the_loss_of_both_stores(
    stores: dict[str, str], connection: redis.Redis, stack: embedded.Stack, tmp_path: Path, photograph: str
) -> None:
    file, copy = tmp_path / "redis.gz", tmp_path / "bucket"
    with _service(tmp_path / "before", stores) as victim:
        alice = victim.alice
        over = alice.finished(alice.enqueue(photograph))
        picture = requests.get(over["result_url"], timeout=10).content
        running = alice.enqueue(photograph, model="slow")
        eventually(lambda: alice.get(f"/api/ai/queue/{running}").json()["status"] == "processing")
        with victim.no_worker_moves():
            queued = [alice.enqueue(photograph, custom_id=str(number)) for number in range(3)]
            _copied(stores, "bucket", str(copy))
            saved = darkroom_admin(stack, "backup", str(file), **stores)
            assert saved.returncode == 0, saved.stderr
            _copied(stores, "bucket", str(copy))
        later = alice.enqueue(photograph)
        alice.finished(later)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    connection.flushdb()
    objects = Objects(StoreSettings(**stores))
    assert objects.delete_prefix("") > 0
    shutil.rmtree(tmp_path / "before")
    _copied(stores, str(copy), "bucket")
    restored = darkroom_admin(stack, "restore", str(file), **stores)
    assert restored.returncode == 0, restored.stderr
    assert restored.stdout == saved.stdout, "as many keys"
    with _service(tmp_path / "after", stores) as victim:
        alice = victim.alice
        again = alice.get(f"/api/ai/queue/{over['generation_id']}").json()
        assert requests.get(again["result_url"], timeout=10).content == picture
        assert [alice.finished(id_)["status"] for id_ in (running, *queued)] == ["succeeded"] * 4
        assert alice.get(f"/api/ai/queue/{later}").status_code == 404, "it came after the backup"
        assert alice.finished(alice.enqueue(photograph))["status"] == "succeeded"


def test_every_key_comes_back_with_its_lifetime(connection: redis.Redis, tmp_path: Path) -> None:
    connection.set(keys.GENERATION + "a", "ü", px=600_000)
    connection.hset(keys.GENERATION + "b", mapping={"id": "b"})
    connection.xadd(keys.EVENTS + "alice", {"type": "one"}, id="5-1")
    connection.set(keys.TOKEN + "short", "1", px=2000)
    before = connection.pexpiretime(keys.GENERATION + "a")
    assert backup.save(connection, tmp_path / "file") == 4
    connection.flushdb()
    eventually(lambda: connection.time()[0] * 1000 > before - 600_000 + 3000)
    backup.restore(connection, tmp_path / "file")
    assert connection.get(keys.GENERATION + "a") == "ü"
    assert connection.pexpiretime(keys.GENERATION + "a") == before
    assert connection.ttl(keys.GENERATION + "b") == -1
    assert connection.xinfo_stream(keys.EVENTS + "alice")["last-generated-id"] == "5-1"  # type: ignore[index]
    assert not connection.exists(keys.TOKEN + "short"), "its time is over"


def test_writes_wait_while_it_reads_and_no_longer(
    stores: dict[str, str], connection: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = backup._entries
    impatient = StoreSettings(redis_timeout_s=0.2, **stores)

    def meanwhile(reading: redis.Redis) -> Iterator[dict[str, Any]]:
        with contextlib.closing(connections.connect(impatient)) as writing, pytest.raises(redis.TimeoutError):
            writing.set("written", "meanwhile")
        yield from entries(reading)

    monkeypatch.setattr(backup, "_entries", meanwhile)
    assert backup.save(connection, tmp_path / "file") == 0
    assert connection.set("written", "at once")


def test_a_redis_that_is_not_empty_and_half_a_file_are_refused(connection: redis.Redis, tmp_path: Path) -> None:
    file = tmp_path / "file"
    connection.set(keys.SEQUENCE, 7)
    backup.save(connection, file)
    with pytest.raises(backup.BackupError, match="not empty"):
        backup.restore(connection, file)
    connection.flushdb()
    lines = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    for damaged in (
        file.read_bytes()[:-20],
        gzip.compress(b"".join(lines[:-1])),
        gzip.compress(lines[0] + lines[2]),
        b"x",
    ):
        (tmp_path / "half").write_bytes(damaged)
        with pytest.raises(backup.BackupError, match="not a whole backup"):
            backup.restore(connection, tmp_path / "half")
        assert not connection.dbsize()
