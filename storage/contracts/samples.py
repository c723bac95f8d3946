"""What executions were like: one sample each, kept for every target, from which statistics and estimates are made. Pure."""

import contextlib
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from storage.contracts import errors
from storage.contracts.values import Frozen

SUCCEEDED = "succeeded"

NOT_THE_TARGETS_FAULT = frozenset(
    {
        errors.InvalidInputError.code,
        errors.InputUnreachableError.code,
        errors.ContentFilteredError.code,
        errors.CancelledError.code,
        errors.StoreUnavailableError.code,
        errors.ObjectsUnavailableError.code,
    }
)
"""Ways to fail that say nothing about the model on that GPU."""


class Target(Frozen):
    """A model on a GPU type in a region."""

    model: str
    gpu_type: str
    region: str

    @property
    def name(self) -> str:
        """As the store spells it."""
        return f"{self.model}|{self.gpu_type}|{self.region}"

    @classmethod
    def named(cls, name: str) -> "Target":
        """The other way round. Raises `ValueError`."""
        model, gpu_type, region = name.split("|")
        return cls(model=model, gpu_type=gpu_type, region=region)


class Sample(Frozen):
    """One execution as its worker saw it; times in milliseconds.

    `outcome` is `succeeded` or an error's code. `pixels` were rendered, in `steps` (as often as the
    model was run), from so many `references`, the prompt `upsampled` or not. `load_ms` is 0
    when the model was there. `peak_gb` is the GPU's own count of memory, where there is one: the most of `phases_gb`
    (encode, denoise, decode), which the execution plan has as `planned_gb`.
    """

    at_ms: int
    outcome: str
    placement: str = ""
    pixels: int = 0
    steps: int = 0
    references: int = 0
    upsampled: bool = False
    queue_ms: int = 0
    load_ms: int = 0
    execute_ms: int = 0
    upload_ms: int = 0
    peak_gb: float | None = None
    phases_gb: dict[str, float] = Field(default_factory=dict)
    planned_gb: dict[str, float] = Field(default_factory=dict)


def readable(texts: Iterable[str]) -> Iterator[Sample]:
    """Those that this version can read, from JSON."""
    for text in texts:
        with contextlib.suppress(ValueError):
            # Of a newer release's, what this one knows.
            yield Sample.model_validate_json(text, extra="ignore")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How a time was spread over `count` samples, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """A target's samples in short. `success_rate` is 0 to 1 and None without any; `failures` counts codes."""

    count: int
    execute: Spread | None
    cold_start: Spread | None
    success_rate: float | None
    failures: Mapping[str, int]
    peak_gb: float | None
    placements: tuple[str, ...]
    latest_ms: int | None


def quantile(values: Sequence[float], share: float, *, unseen: bool = False) -> float:
    """The interpolated quantile (0 to 1) of at least one value.

    With `unseen` the share of what the next ones will be, for which a few values' ends are not the ends.
    """
    if len(values) == 1:
        return float(values[0])
    cuts = statistics.quantiles(values, n=1000, method="exclusive" if unseen else "inclusive")
    return float(cuts[max(0, min(len(cuts) - 1, round(share * 1000) - 1))])


def spread_of(values: Sequence[float]) -> Spread | None:
    """None of nothing."""
    if not values:
        return None
    return Spread(count=len(values), p50=quantile(values, 0.5), p95=quantile(values, 0.95), p99=quantile(values, 0.99))


def statistics_of(samples: Sequence[Sample]) -> Statistics:
    """In short; execution times are of what succeeded, whatever its size and steps."""
    made = [sample for sample in samples if sample.outcome == SUCCEEDED]
    return Statistics(
        count=len(samples),
        execute=spread_of([sample.execute_ms for sample in made]),
        cold_start=spread_of([sample.load_ms for sample in made if sample.load_ms]),
        success_rate=len(made) / len(samples) if samples else None,
        failures=Counter(sample.outcome for sample in samples if sample.outcome != SUCCEEDED),
        peak_gb=max((sample.peak_gb for sample in samples if sample.peak_gb is not None), default=None),
        placements=tuple(sorted({sample.placement for sample in made})),
        latest_ms=max((sample.at_ms for sample in samples), default=None),
    )
