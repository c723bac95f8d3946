"""Whether every weight of a part came from the files; diffusers and transformers only warn about those that did not."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from storage.contracts import errors

SHOWN = 3
"""Names of weights in an error's sentence."""


def check(part: torch.nn.Module, report: Mapping[str, Any], name: str) -> None:
    """Whether every weight of a part came from the files: what is missing would stay random, or without memory.

    Raises `errors.ModelUnavailableError` naming the first few. What was left out on purpose is no weight of the part any more.
    """
    state = part.state_dict()
    # diffusers believes the index of a part in several files; a weight that its file lacks stays on the meta device.
    missing = sorted(state.keys() & {*report["missing_keys"], *(key for key, one in state.items() if one.is_meta)})
    if missing:
        raise errors.ModelUnavailableError(f"{name} lacks {_counted(missing)}")
    # Name, shape in the file, shape in the model.
    mismatched = sorted(key for key, *_ in report["mismatched_keys"] if key in state)
    if mismatched:
        raise errors.ModelUnavailableError(f"{name} has other shapes than the model for {_counted(mismatched)}")


def _counted(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{len(names)} weight{'s' if len(names) > 1 else ''}: {shown}"
