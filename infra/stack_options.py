"""Where an embedded stack lives: its options, the ports and secrets it keeps, and the environment its processes get."""

import json
import logging
import os
import secrets
import socket
from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from storage.settings import StoreSettings

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8000
STORE_PORTS = ("valkey_port", "s3_port")
KEPT = "stack.json"
"""Below the data folder: ports and secrets that survive a restart."""


class StartError(Exception):
    """The stack could not be started; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the environment asks for."""

    port: int
    workers: int
    text_encoders: int
    data_dir: Path
    environment: Mapping[str, str]
    through: Callable[[int], int] = field(default=lambda port: port)
    """Port of an embedded server to the port by which the service reaches it: fault tests put a proxy between."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Options":
        """Read `DARKROOM_PORT` (0 picks a free one), `_DATA_DIR`, `_WORKERS` and `_TEXT_ENCODERS`. Raises `StartError`."""

        def number(name: str, default: str, lowest: int, highest: int) -> int:
            text = environment.get(name, default)
            if not text.isdecimal() or not lowest <= int(text) <= highest:
                raise StartError(f"{name} must be a number from {lowest} to {highest}; got {text!r}")
            return int(text)

        return cls(
            port=number("DARKROOM_PORT", str(DEFAULT_PORT), 0, 65535),
            workers=number("DARKROOM_WORKERS", "1", 1, 64),
            text_encoders=number("DARKROOM_TEXT_ENCODERS", "0", 0, 16),
            data_dir=Path(environment.get("DARKROOM_DATA_DIR", ".data")).absolute(),
            environment=environment,
        )


def checked_port(port: int) -> int:
    """The port, free at this moment; 0 becomes one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as exc:
            raise StartError(f"port {port} cannot be used ({exc.strerror}); set DARKROOM_PORT to another") from None
        return int(probe.getsockname()[1])


def own_port(port: int, kept: Mapping[str, str]) -> int:
    """The API's port, free and none of those that are kept for the stores; 0 becomes one. Raises `StartError`."""
    of_stores = [kept[name] for name in STORE_PORTS]
    if str(port) in of_stores:
        raise StartError(f"port {port} is kept for a store of this stack; set DARKROOM_PORT to another")
    return checked_port(port) if port else free_port(of_stores)


def free_port(besides: Collection[str] = ()) -> int:
    """A port that is free at this moment, and none of these."""
    while str(port := checked_port(0)) in besides:
        pass
    return port


def keep(options: Options) -> dict[str, str]:
    """Ports and secrets that survive a restart, so that URLs handed out stay good. Made on the first start."""
    file = options.data_dir / KEPT
    kept: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    for name in STORE_PORTS:
        others = [str(options.port), *(kept[other] for other in STORE_PORTS if other != name and other in kept)]
        try:
            kept[name] = str(checked_port(int(kept[name])) if name in kept else free_port(others))
        except StartError:
            log.warning("%s %s is taken; using another: URLs handed out before will not work", name, kept[name])
            kept[name] = str(free_port(others))
    for name in ("valkey_password", "s3_access_key_id", "s3_secret_access_key", "secret"):
        kept.setdefault(name, secrets.token_hex(16))
    kept.setdefault("api_key", f"dk_dev_{secrets.token_urlsafe(24)}")
    write_private(file, json.dumps(kept, indent=2))
    return kept


def without_proxy(environment: MutableMapping[str, str]) -> None:
    """Have what is on this machine reached directly, whatever proxy the environment names."""
    for name in ("no_proxy", "NO_PROXY"):
        environment[name] = ",".join((*filter(None, [environment.get(name)]), LOOPBACK, "localhost", "::1"))


def url(environment: Mapping[str, str], port: int) -> str:
    """Where the API is reached from this machine."""
    scheme = "https" if environment.get("DARKROOM_TLS_CERTIFICATE") else "http"
    host = environment.get("DARKROOM_HOST", LOOPBACK)
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104  (nothing is bound)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def of_process(name: str, number: int, environment: Mapping[str, str]) -> dict[str, str]:
    """What one of the service's processes, the API's first, is not to share: a name that is given, and a port of its metrics."""
    own: dict[str, str] = {}
    if given := environment.get("DARKROOM_WORKER_NAME"):
        own["DARKROOM_WORKER_NAME"] = f"{given}-{name}"
    if int(first := environment.get("DARKROOM_METRICS_PORT") or "0"):
        own["DARKROOM_METRICS_PORT"] = str(int(first) + number)
    return own


def tell_client(options: Options, url: str, key: str) -> None:
    """Where the command line finds this stack, for users who may read its folder."""
    write_private(options.data_dir / "client.json", json.dumps({"url": url, "key": key}))


def redis_url(kept: Mapping[str, str]) -> str:
    """Where the embedded Valkey is."""
    return f"redis://:{kept['valkey_password']}@{LOOPBACK}:{kept['valkey_port']}/0"


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
        target.write(text)


def environment(options: Options, port: int, kept: Mapping[str, str]) -> dict[str, str]:
    """What the stack's processes get: defaults, what the caller set, and where the embedded servers are."""
    defaults = {
        "DARKROOM_SECRET": kept["secret"],
        "DARKROOM_CATALOG": str(Path(__file__).parent / "catalog.embedded.toml"),
        "DARKROOM_GPU_TYPE": "cpu",
        # Its weights cannot be built here; an operator's worker loads them.
        "DARKROOM_IMAGE_FILTER": "",
        "DARKROOM_SIGNING_CERTIFICATE": str(options.data_dir / "signing.pem"),
        "DARKROOM_SIGNING_KEY": str(options.data_dir / "signing.key"),
        "DARKROOM_WEIGHTS_DIR": str(options.data_dir / "weights"),
        "HF_HUB_OFFLINE": "1",
        # On a machine that does other things too, threads that spin for each other make an edit take ten times as long; waiting
        # less of that costs a tenth where the machine is idle.
        "GOMP_SPINCOUNT": "10000",
        # They would fill the logs with hints about optional packages.
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
        "PYTHONUNBUFFERED": "1",
        "S3_PUBLIC_ENDPOINT_URL": options.environment.get("S3_ENDPOINT_URL", f"http://{LOOPBACK}:{kept['s3_port']}"),
    }
    if "DARKROOM_API_KEYS" not in options.environment:
        # A user with keys of their own wants no other to be valid.
        defaults["DARKROOM_API_KEY"] = kept["api_key"]
    if not {"DARKROOM_MODELS", "DARKROOM_CATALOG"} & options.environment.keys():
        # The first edit of a stranger should not wait for a load.
        defaults["DARKROOM_PRELOAD"] = '["flux-kontext-dev"]'
    own = addresses(options, kept, options.through)
    return {**defaults, **options.environment, **own, "DARKROOM_PORT": str(port)}


def addresses(options: Options, kept: Mapping[str, str], through: Callable[[int], int]) -> dict[str, str]:
    """Where the embedded servers are; nothing for a server the environment names itself."""
    addresses: dict[str, str] = {}
    if "REDIS_URL" not in options.environment:
        # One that is set for another server is not this one's.
        addresses["REDIS_PASSWORD"] = ""
        addresses["REDIS_URL"] = redis_url({**kept, "valkey_port": str(through(int(kept["valkey_port"])))})
    if "S3_ENDPOINT_URL" not in options.environment:
        addresses |= {
            "S3_ENDPOINT_URL": f"http://{LOOPBACK}:{through(int(kept['s3_port']))}",
            "S3_ACCESS_KEY_ID": kept["s3_access_key_id"],
            "S3_SECRET_ACCESS_KEY": kept["s3_secret_access_key"],
        }
    return addresses


def store_settings(environment: Mapping[str, str]) -> StoreSettings:
    """The stores as an environment names them, and how long Redis may take."""
    secret = environment.get("S3_SECRET_ACCESS_KEY")
    patience: dict[str, Any] = {}
    if timeout := environment.get("DARKROOM_REDIS_TIMEOUT_S"):
        patience["redis_timeout_s"] = timeout
    settings = StoreSettings(
        **patience,
        REDIS_URL=SecretStr(environment["REDIS_URL"]),
        REDIS_PASSWORD=SecretStr(environment.get("REDIS_PASSWORD", "")),
        S3_ENDPOINT_URL=environment["S3_ENDPOINT_URL"],
        S3_ACCESS_KEY_ID=environment.get("S3_ACCESS_KEY_ID"),
        S3_SECRET_ACCESS_KEY=SecretStr(secret) if secret else None,
    )
    named = {"s3_bucket": environment.get("S3_BUCKET"), "s3_region": environment.get("S3_REGION")}
    return settings.model_copy(update={name: value for name, value in named.items() if value})
