"""The names of all settings, so that a misspelt one is told of: nothing else would notice it."""

import functools
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from storage.contracts.parameters import meant

log = logging.getLogger(__name__)

PREFIX = "DARKROOM_"
_OF_SERVICE = re.compile(r"(\w+?)_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
"""A variable that Kubernetes sets in a pod for a service of its namespace; its name comes first."""


@functools.cache
def names() -> frozenset[str]:
    """Of every process, the embedded stack, compose and the clients; written by `python -m infra.reference`."""
    return frozenset((Path(__file__).parent / "setting_names.txt").read_text().split())


def warn(variables: Iterable[str]) -> None:
    """Log what `unknown` says."""
    for sentence in unknown(variables):
        log.warning("%s", sentence)


def unknown(variables: Iterable[str]) -> list[str]:
    """A sentence for each environment variable that has our prefix and is no setting."""
    ours = sorted(name for name in variables if name.startswith(PREFIX))
    return [_told(name) for name in ours if name not in names() and not _is_of_service(name, ours)]


def _is_of_service(name: str, variables: Sequence[str]) -> bool:
    match = _OF_SERVICE.fullmatch(name)
    return match is not None and f"{match[1]}_SERVICE_HOST" in variables


def _told(name: str) -> str:
    return f"{name} is not a setting{meant(name, names())}, and has no effect"
