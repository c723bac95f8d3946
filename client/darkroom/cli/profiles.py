"""Which service a command talks to: options, environment, a profile of the configuration file, or a stack in this folder."""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

URL, KEY, PROFILE = "DARKROOM_URL", "DARKROOM_API_KEY", "DARKROOM_PROFILE"
DEFAULT_URL = "http://127.0.0.1:8000"
LOCAL = "client.json"
"""Below a stack's data folder: its address and key, for users who may read the folder."""


class ConfigurationError(Exception):
    """A file that cannot be used; the message names it and what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A service and a key for it; `source` says where they are from. No key: None."""

    url: str
    key: str | None
    source: str


def configuration_file() -> Path:
    """Where profiles are kept."""
    return Path(os.environ.get("DARKROOM_CONFIG_FILE") or platformdirs.user_config_path("darkroom") / "config.toml")


def chosen(*, url: str | None, key: str | None, name: str | None, environment: Mapping[str, str]) -> Profile:
    """The service to talk to: by options, then a profile that is named, then the environment, then what is there.

    A key that is kept for one address is sent to no other. Raises `ConfigurationError`.
    """
    named = name or environment.get(PROFILE)
    if named:
        kept = _of_file(configuration_file(), named)
        wanted_url, wanted_key = url, key
    else:
        wanted_url, wanted_key = url or environment.get(URL) or None, key or environment.get(KEY) or None
        kept = _of_file(configuration_file(), None)
        if kept is None and wanted_url is None:
            kept = _of_stack(Path(environment.get("DARKROOM_DATA_DIR", ".data")) / LOCAL)
    kept = kept or Profile(url=DEFAULT_URL, key=None, source="the default")
    if wanted_url is None or wanted_url == kept.url:
        return Profile(url=kept.url, key=wanted_key or kept.key, source=kept.source)
    return Profile(url=wanted_url, key=wanted_key, source="--url" if url else URL)


def _of_file(file: Path, name: str | None) -> Profile | None:
    if not file.exists():
        if name is not None:
            raise ConfigurationError(f"there is no profile {name}: {file} does not exist")
        return None
    try:
        content = tomllib.loads(file.read_text())
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{file}: {exc}") from None
    name = name or content.get("default")
    if name is None:
        return None
    known: Mapping[str, Any] = content.get("profiles", {})
    if name not in known:
        raise ConfigurationError(f"{file} has no profile {name}; it has {', '.join(known) or 'none'}")
    profile = known[name]
    if not isinstance(profile.get("url"), str):
        raise ConfigurationError(f"{file}: profile {name} needs a url")
    return Profile(url=profile["url"], key=profile.get("key"), source=f"profile {name} of {file}")


def _of_stack(file: Path) -> Profile | None:
    try:
        content = json.loads(file.read_text())
        return Profile(url=content["url"], key=content["key"], source=str(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigurationError(f"{file} cannot be read ({exc}); it is written anew by `make up`") from None
