"""LoRAs that a request names by their path: those that the catalog offers as versions of the model.

A path is compared with the catalog's and never opened: callers choose among what their operator has put there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.contracts import catalog, errors
from storage.contracts.parameters import shown

MAX_SCALE = 2
_HUB = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)(?:/(?:resolve|blob)/[^/]+/.*)?")
"""A repository of the hub, or a file of one."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """One of a request: a path, and how strongly it is to work, 0 to 2."""

    path: str
    scale: float = 1.0


def listed(value: Any, field: str) -> list[Lora]:
    """A list of objects with `path` and `scale`, as fal has it; nothing is none. Raises `errors.InvalidInputError`."""
    entries = [] if value is None else value
    if not isinstance(entries, list) or not all(isinstance(one, Mapping) for one in entries):
        raise errors.InvalidInputError(f"{field} must be a list of objects with path and scale", field=field)
    return [one_of(entry.get("path"), entry.get("scale"), field) for entry in entries]


def one_of(path: Any, scale: Any, field: str) -> Lora:
    """One by its path and scale; no scale is 1. Raises `errors.InvalidInputError`."""
    if not isinstance(path, str) or not 0 < len(path) <= 500:
        raise errors.InvalidInputError(f"{field}: path must be a string of 1 to 500 characters", field=field)
    scale = 1.0 if scale is None else scale
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= MAX_SCALE:
        message = f"{field}: scale must be a number between 0 and {MAX_SCALE}; got {shown(scale)}"
        raise errors.InvalidInputError(message, field=field)
    return Lora(path=path, scale=float(scale))


def applied(known: catalog.Catalog, name: str, loras: Sequence[Lora], field: str) -> tuple[str, float | None]:
    """The version of a model that has the LoRA, and how strongly it is to work, if its operator lets that be said.

    Raises `errors.InvalidInputError` for one that is not offered, for several, and for a scale that cannot be had.
    """
    if not loras:
        return name, None
    if len(loras) > 1:
        raise errors.InvalidInputError(f"{field}: one at a time can be used; got {len(loras)}", field=field)
    (lora,) = loras
    offered = {
        _plain(model.weights.lora): other
        for other in known.versions(name).values()
        if (model := known.models[other]).weights.lora is not None
    }
    if (version := offered.get(_plain(lora.path))) is None:
        there = ", ".join(offered) or "none"
        message = f"{field}: {shown(lora.path)} is not offered with {name}; there are: {there} (docs/models.md)"
        raise errors.InvalidInputError(message, field=field)
    if catalog.LORA_SCALE in known.models[version].parameters:
        return version, lora.scale
    if lora.scale != 1:
        message = (
            f"{field}: scale must be 1, as {version} has it merged; its operator can let it be chosen (docs/models.md)"
        )
        raise errors.InvalidInputError(message, field=field)
    return version, None


def _plain(path: str) -> str:
    """A path as it is compared: of the hub's addresses the repository alone."""
    hub = _HUB.fullmatch(path.rstrip("/"))
    return hub[1] if hub else path
