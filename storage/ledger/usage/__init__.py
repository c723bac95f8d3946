"""What was used: counts and costs by tenant, durations by target."""

from dataclasses import dataclass
from typing import Any

from storage.contracts import samples
from storage.ledger.call import Call, table_of

TALLIED = 1000
"""Unfinished generations that a count looks at, so that it never blocks Redis for long."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What a tenant's generations of a model came to in the last month, and how many are under way.

    `queued` and `processing` are counted among the tenant's `TALLIED` oldest unfinished.
    """

    succeeded: int
    failed: int
    cancelled: int
    retried: int
    queued: int
    processing: int


def tally(tenant: str, model: str) -> Call[Tally]:
    """Count a tenant's generations of one model."""

    def decode(reply: list[int]) -> Tally:
        succeeded, failed, cancelled, retried, queued, processing = reply
        return Tally(
            succeeded=succeeded,
            failed=failed,
            cancelled=cancelled,
            retried=retried,
            queued=queued,
            processing=processing,
        )

    return Call(script="tally", arguments=(tenant, model, TALLIED), decode=decode)


MOST_SAMPLES = 200
"""Of one target: as many as are kept."""


def samples_of(model: str) -> Call[dict[samples.Target, tuple[samples.Sample, ...]]]:
    """The latest samples of a model on every target, newest first."""

    def decode(reply: list[Any]) -> dict[samples.Target, tuple[samples.Sample, ...]]:
        pairs = zip(reply[::2], reply[1::2], strict=True)
        return {samples.Target.named(name): tuple(samples.readable(latest)) for name, latest in pairs}

    return Call(script="samples", arguments=(model, MOST_SAMPLES), decode=decode)


def usage(tenant: str, month: str) -> Call[dict[str, int]]:
    """What a tenant used in a month, by `<model>:<what>`, and what is `spent` and `reserved` in millionths of a dollar."""
    return Call(
        script="usage",
        arguments=(tenant, month),
        decode=lambda reply: {name: int(value) for name, value in table_of(reply).items()},
    )
