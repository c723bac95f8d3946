"""Fixtures: one embedded stack for each process of the run, tenants on it, and pictures to send."""

import atexit
import contextlib
import fcntl
import functools
import gc
import io
import itertools
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from PIL import Image
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from infra import embedded, stack_options
from storage import connections, keys
from tests import scheduling, web
from tests.forking import ForkedChild

# Until all tests are imported, which sets off collections that find nothing.
gc.disable()

# Here and in every stack. With tests side by side a thread of torch's would mostly wait for another that is not running.
os.environ.setdefault("OMP_NUM_THREADS", "1")

PHOTOGRAPH = Path(embedded.__file__).parent / "sample" / "astronaut.jpg"

DIALECT_TENANTS = ("ruth", "nina", "olga", "rita", "faye", "bella", "nadia", "ilse", "iris")
"""One for each dialect's tests, since some count or purge what is theirs."""

TENANTS = {
    name: f"key-of-{name}-{secrets.token_hex(8)}"
    for name in (
        "alice",
        "bob",
        "carol",
        "dave",
        "erin",
        "frank",
        "grace",
        "hugh",
        "ivan",
        "penny",
        "wendy",
        *DIALECT_TENANTS,
    )
}


OTHER_S3 = "TEST_S3"
SHARED = "TEST_SHARED_DIR"
"""Names the folder that the processes of one run share, to each of them."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.add_cleanup(web.release_ports)
    if SHARED not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="darkroom-tests-")
        # The processes that pytest-xdist starts from this one inherit it.
        os.environ[SHARED] = folder.name
        config.add_cleanup(folder.cleanup)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


LONGEST = (
    "test_oracle", "test_recovery", "test_limits", "test_embedded_stack", "test_phases", "test_adapters", "test_failover",
    "test_profiles", "test_execution", "test_bench_gpu", "test_loading", "test_backup", "test_release", "test_pipelines",
    "test_logs", "test_chart", "test_following",
    "test_samples", "test_text_encoder", "test_page", "test_command_line", "test_runpod", "test_contracts", "test_fleet",
    "test_blocks", "test_families", "test_published_samples", "test_meaning", "test_slow_clients", "test_ledger_model",
    "test_ledger", "test_forge", "test_bounds", "test_refusals", "test_queue", "test_bare", "test_batches", "test_keys",
    "test_replicate", "test_node_clients", "test_erasure", "test_openai", "test_restart", "test_scaling",
)  # fmt: skip
"""Files that are begun first when several run at a time, since the last one begun is waited for alone: those that need no
service or one of their own, and those that need the shared one (`tests.scheduling`)."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        rank = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return scheduling.ByService(config, log) if config.getvalue("dist") == "loadfile" else None


@functools.cache
def _weights() -> Path:
    """What the embedded stack makes for itself, made by the first process that needs it, for all stacks of the run."""
    if SHARED not in os.environ:
        # A program that is no test run, such as `tests.fuzz`.
        os.environ[SHARED] = tempfile.mkdtemp(prefix="darkroom-tests-")
        atexit.register(shutil.rmtree, os.environ[SHARED], ignore_errors=True)
    folder = Path(os.environ[SHARED])
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        made = folder / "made"
        if not made.exists():
            embedded.furnish(folder, os.environ)
            made.touch()
    return folder / "weights"


def stack_environment(data_dir: Path, **extra: str) -> dict[str, str]:
    """A stack of the tests' own: a free port, short pauses, models that only sleep.

    Most tests ask what happens when nothing goes wrong: a busy machine is no fault.
    """
    shipped = Path(embedded.__file__).parent / "catalog.embedded.toml"
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "REDIS_", "S3_"))
    }
    return {
        **inherited,
        "DARKROOM_PORT": "0",
        "DARKROOM_DATA_DIR": str(data_dir),
        "DARKROOM_API_KEYS": json.dumps(TENANTS),
        "DARKROOM_WEIGHTS_DIR": extra.get("DARKROOM_WEIGHTS_DIR") or str(_weights()),
        "DARKROOM_CATALOG": f"{shipped}:{Path(__file__).parent / 'catalog.toml'}",
        "DARKROOM_LEASE_S": "15",
        "DARKROOM_REDIS_TIMEOUT_S": "20",
        # Few tests have something edited by it.
        "DARKROOM_PRELOAD": "[]",
        "DARKROOM_BEAT_S": "0.5",
        "DARKROOM_SWEEP_S": "0.5",
        "DARKROOM_REST_S": "0.2",
        "DARKROOM_LOAD_REST_S": "1",
        "DARKROOM_FETCH_LIMIT_S": "3",
        **_object_store(),
        **extra,
    }


def _object_store() -> dict[str, str]:
    """The S3 server that `TEST_S3` names by URL, key id and secret, with a bucket for each stack; otherwise the embedded one."""
    if OTHER_S3 not in os.environ:
        return {}
    url, access, secret = os.environ[OTHER_S3].split(",")
    bucket = f"tests-{secrets.token_hex(8)}"
    return {"S3_ENDPOINT_URL": url, "S3_ACCESS_KEY_ID": access, "S3_SECRET_ACCESS_KEY": secret, "S3_BUCKET": bucket}


@contextlib.contextmanager
def running_stack(data_dir: Path, **extra: str) -> Iterator[embedded.Stack]:
    """Start one and stop it."""
    options = stack_options.Options.from_environment(stack_environment(data_dir, **extra))
    with embedded.running(options, ForkedChild) as stack:
        yield stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Stack]:
    image_port, bucket_port = web.free_port(), web.free_port()
    # Behind the last nobody answers.
    allowed = json.dumps([f"127.0.0.1:{image_port}", f"127.0.0.1:{bucket_port}", "127.0.0.1:1"])
    with running_stack(
        tmp_path_factory.mktemp("a stack"),
        # Whatever a test looks at later has left Redis by then, or not: that makes no difference.
        DARKROOM_ARCHIVE_AFTER_S="1",
        DARKROOM_METRICS_PORT="0",
        DARKROOM_FETCH_ALLOWED=allowed,
        DARKROOM_NIM_TENANT="nina",
        DARKROOM_BUDGETS='{"penny": 0.025}',
        TEST_IMAGE_PORT=str(image_port),
        TEST_BUCKET_PORT=str(bucket_port),
    ) as one:
        yield one


@dataclass(frozen=True)
class Tenant:
    """A caller of the API."""

    url: str
    name: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def post(self, path: str, body: object = None, **more: Any) -> requests.Response:
        headers = {**self.headers, **more.pop("headers", {})}
        return requests.post(self.url + path, json=body, headers=headers, timeout=60, **more)

    def get(self, path: str, **more: Any) -> requests.Response:
        headers = {**self.headers, **more.pop("headers", {})}
        return requests.get(self.url + path, headers=headers, timeout=60, **more)

    def delete(self, path: str) -> requests.Response:
        return requests.delete(self.url + path, headers=self.headers, timeout=60)

    def enqueue(
        self, image: str, *, model: str = "quick", headers: dict[str, str] | None = None, **fields: object
    ) -> str:
        body = {"model": model, "prompt": "make it blue", "input_image": image, **fields}
        answer = self.post("/api/ai/queue", body, headers=headers or {})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["generations"][0]["generation_id"])

    def finished(self, id_: str) -> dict[str, Any]:
        for _ in range(3):
            found: dict[str, Any] = self.get(f"/api/ai/queue/{id_}?wait=30").json()
            if found["status"] in ("succeeded", "failed", "cancelled"):
                return found
        raise AssertionError(found)


@pytest.fixture
def alice(stack: embedded.Stack) -> Tenant:
    return Tenant(stack.url, "alice", TENANTS["alice"])


@pytest.fixture
def bob(stack: embedded.Stack) -> Tenant:
    return Tenant(stack.url, "bob", TENANTS["bob"])


@pytest.fixture
def nobody_waits(stack: embedded.Stack) -> Iterator[None]:
    """After the test no lease is left, no generation waits, and every key has a lifetime or may lack one."""
    yield
    with contextlib.closing(connections.connect(stack.store)) as connection:
        eventually(lambda: not connection.exists(keys.LEASES, keys.DEPTHS))
        check_lifetimes(connection)


Receiving = Callable[..., AbstractContextManager[list[web.Received]]]


@pytest.fixture
def hooks(stack: embedded.Stack) -> tuple[str, Receiving]:
    """An address for webhooks, and what takes them there; statuses that are not given are 200."""
    port = int(stack.options.environment["TEST_IMAGE_PORT"])

    def receiving(*statuses: int) -> AbstractContextManager[list[web.Received]]:
        return web.receiving(port, itertools.chain(statuses, itertools.repeat(200)))

    return f"http://127.0.0.1:{port}/hook", receiving


def check_lifetimes(connection: redis.Redis) -> None:
    for key in connection.scan_iter(match=keys.PREFIX + "*"):
        assert str(key).startswith(keys.PERMANENT) or connection.ttl(key) != -1, f"{key} lives for ever"


def eventually(condition: Callable[[], Any], *, within_s: float = 60) -> Any:
    """What the condition returns once it is true; fails when it does not get true in time."""
    deadline, pause_s = time.monotonic() + within_s, 0.01
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(pause_s)
        # Looking often is work for the processors that what is waited for needs.
        pause_s = min(1.1 * pause_s, 0.1)
    raise AssertionError(f"not true within {within_s} s")


def encoded(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def data_uri(data: bytes, content_type: str = "image/png") -> str:
    import base64

    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


@pytest.fixture(scope="session")
def photograph() -> str:
    """A real photograph as a data URI."""
    return data_uri(PHOTOGRAPH.read_bytes(), "image/jpeg")


@pytest.fixture(scope="session")
def tiny() -> str:
    """A one-pixel PNG as a data URI: as small as inputs get."""
    return data_uri(encoded(Image.new("RGB", (1, 1), "red"), "PNG"))
