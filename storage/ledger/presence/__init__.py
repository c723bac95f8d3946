"""Which workers are there, and which models they are asked to keep loaded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from storage.contracts import samples
from storage.ledger.call import Call, table_of
from storage.ledger.claims import Claimant


def present() -> Call[dict[str, dict[str, Any]]]:
    """What every process that is there says of itself, by name."""
    return Call(
        script="present",
        arguments=(),
        decode=lambda reply: {name: json.loads(facts) for name, facts in table_of(reply).items()},
    )


Wish = Literal["once", "always", "never"]
"""How a model is wanted on a target: loaded once, kept loaded, let go."""


def want(target: samples.Target, how: Wish, *, tenant: str, seconds: float, worker: str = "") -> Call[int]:
    """Ask for a model for a tenant, of a `worker` or of any; its target's GPU type and region may be `any`.

    After `seconds` it is forgotten, unless for always. 0: nothing came of it, it is kept loaded for somebody.
    """
    arguments = (target.model, target.gpu_type, target.region, how, int(seconds * 1000), worker, tenant)
    return Call(script="want", arguments=arguments, decode=int)


@dataclass(frozen=True)
class Wanted:
    """A wish as a worker is told of it; one that is renewed has another end, in milliseconds since 1970."""

    how: Wish
    until_ms: int


def wanted(claimant: Claimant, models: Sequence[str]) -> Call[dict[str, Wanted]]:
    """What a worker is to load or to let go of, by model."""

    def decode(reply: list[Any]) -> dict[str, Wanted]:
        told = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return {model: Wanted(how, int(until_ms)) for model, how, until_ms in told}

    arguments = (claimant.worker, claimant.gpu_type, claimant.region, *models)
    return Call(script="wanted", arguments=arguments, decode=decode)
