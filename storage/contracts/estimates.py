"""How long an edit will take on a target, and what it will cost, from what earlier ones took. Pure.

A range goes from the tenth to the ninetieth of a hundred such edits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from storage.contracts.catalog import Model
from storage.contracts.gpus import GpuType
from storage.contracts.samples import SUCCEEDED, Sample, quantile

ENOUGH = 5
"""Runs of the same size, steps and references from which on they alone are looked at."""
NEAREST = 20
"""Runs that are scaled when there are too few of the same kind."""
SAME_SIZE = 0.05
"""How far, as a logarithm, two numbers of pixels may be apart to count as the same."""
DRIFT = 0.03
"""By how much a range is widened on either side: machines are not the same from hour to hour."""
UNSURE = 0.15
"""The same when its runs were scaled."""

Basis = Literal["measured", "scaled"]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What is estimated: rendered pixels, steps and references, and whether the prompt is written anew first."""

    pixels: int
    steps: int
    references: int
    upsampled: bool = False

    @property
    def work(self) -> float:
        """Proportional to the time: every step reads the picture's and the references' tokens."""
        return self.steps * self.pixels * (1 + self.references)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Milliseconds of the pipeline at the 10th, 50th and 90th of a hundred, and what that is taken from."""

    p10: float
    p50: float
    p90: float
    runs: int
    basis: Basis
    sentence: str


def estimated(samples: Sequence[Sample], ask: Ask) -> Estimate | None:
    """How long it takes once the model is there; None when nothing like it has run."""
    made = [sample for sample in samples if sample.outcome == SUCCEEDED and sample.steps and sample.pixels]
    same = [sample for sample in made if _is_same(sample, ask)]
    if len(same) >= ENOUGH:
        return _summed([sample.execute_ms for sample in same], "measured", "at this size and step count", DRIFT)
    if not made:
        return None
    alike = [sample for sample in made if sample.upsampled == ask.upsampled] or made
    nearest = sorted(alike, key=lambda sample: abs(math.log(_ask(sample).work / ask.work)))[:NEAREST]
    scaled = [sample.execute_ms * ask.work / _ask(sample).work for sample in nearest]
    first = nearest[0]
    like = f"of {first.pixels / 2**20:.2g} megapixels, {first.steps} steps and the like, scaled"
    return _summed(scaled, "scaled", like, UNSURE)


def price_usd(model: Model, gpu: GpuType, *, pixels: int, seconds: float) -> float:
    """What an edit costs its caller: by picture and megapixel where the catalog says so, else by the GPU's second."""
    if model.price_per_image or model.price_per_megapixel:
        return model.price_per_image + model.price_per_megapixel * pixels / 2**20
    return gpu.price_per_hour / 3600 * seconds


def _is_same(sample: Sample, ask: Ask) -> bool:
    alike = (sample.steps, sample.references, sample.upsampled) == (ask.steps, ask.references, ask.upsampled)
    return alike and abs(math.log(sample.pixels / ask.pixels)) <= SAME_SIZE


def _ask(sample: Sample) -> Ask:
    return Ask(pixels=sample.pixels, steps=sample.steps, references=sample.references, upsampled=sample.upsampled)


def _summed(times: Sequence[float], basis: Basis, like: str, unsure: float) -> Estimate:
    p10, p50, p90 = (quantile(times, share, unseen=True) for share in (0.1, 0.5, 0.9))
    p10, p90 = max(0.0, p10 * (1 - unsure)), p90 * (1 + unsure)
    sentence = f"p50 {p50 / 1000:.3g} s, p90 {p90 / 1000:.3g} s from {len(times)} runs {like}"
    return Estimate(p10=p10, p50=p50, p90=p90, runs=len(times), basis=basis, sentence=sentence)
