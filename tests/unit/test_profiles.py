"""The profile `fast` stays within its bounds, on weights that were trained: kontext-mini, the same class as FLUX.1 Kontext."""

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from infra import embedded
from storage.contracts import plans
from storage.contracts.plans import PartPlan, Plan
from storage.contracts.weights import Weights
from tests.conftest import PHOTOGRAPH
from workers.pipelines import kontext, stepcache
from workers.pipelines.base import Job
from workers.pipelines.denoising import Denoising

BOUND_DB = 38.0
"""PSNR against `exact`, of the worst picture. Another seed of the same edit is at 19 to 33."""

PROMPTS = ("give it a red border", "flip it upside down")

FP8 = PartPlan(format="fp8", layers=9)


@pytest.fixture(scope="module")
def loaded() -> Callable[[Plan], Denoising]:
    weights = Weights(source="kontext-mini", name="kontext-mini", licence="Apache-2.0")
    folder = Path(embedded.__file__).parent / "weights" / "kontext-mini"
    return functools.cache(lambda plan: kontext.load(weights, folder, "cpu", plan, lambda share: None))


def _job(prompt: str, steps: int, **more: Any) -> Job:
    picture = Image.open(PHOTOGRAPH).convert("RGB").resize((128, 128))
    return Job(
        prompt=prompt,
        references=[picture],
        width=128,
        height=128,
        steps=steps,
        guidance=2.5,
        seed=more.pop("seed", 1),
        **more,
    )


def _picture(pipeline: Denoising, job: Job) -> np.ndarray:
    return np.asarray(pipeline.edit(job, lambda step: None), np.float64)


def _psnr(found: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(((found - expected) ** 2).mean(), 1e-9)))


@pytest.fixture(scope="module")
def picture(loaded: Callable[[Plan], Denoising]) -> Callable[[Plan, str, int, int], np.ndarray]:
    return functools.cache(lambda plan, prompt, steps, seed: _picture(loaded(plan), _job(prompt, steps, seed=seed)))


FAST_FP8 = Plan(profile="fast", transformer=FP8)


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        (FAST_FP8, 8),
        (FAST_FP8, 28),
        # Of fewer than twelve steps none is skipped.
        (Plan(profile="fast", step_cache=True), 28),
        (Plan(profile="fast", transformer=FP8, step_cache=True), 28),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_fast_picture_is_nearly_the_exact_one(
    picture: Callable[[Plan, str, int, int], np.ndarray], plan: Plan, steps: int
) -> None:
    exact = plans.RESIDENT
    ratios = [_psnr(picture(plan, prompt, steps, 1), picture(exact, prompt, steps, 1)) for prompt in PROMPTS]
    assert min(ratios) >= BOUND_DB, ratios
    another = _psnr(picture(exact, PROMPTS[0], steps, 2), picture(exact, PROMPTS[0], steps, 1))
    assert another < min(ratios), "it is nearer than another seed's"


def test_of_28_steps_12_are_computed_and_all_are_told(loaded: Callable[[Plan], Denoising]) -> None:
    pipeline, steps = loaded(Plan(profile="fast", step_cache=True)), []
    pipeline.edit(_job("turn it sepia", 28), steps.append)
    assert steps == list(range(1, 29))
    assert pipeline.applied.step_cache is not None
    assert pipeline.applied.step_cache.ran == 12


@pytest.mark.parametrize(("steps", "computed"), [(1, 1), (4, 4), (11, 11), (12, 8), (20, 10), (28, 12), (50, 20)])
def test_few_steps_are_all_computed_and_of_many_two_of_three_are_not(steps: int, computed: int) -> None:
    ran = [stepcache.runs(step, steps) for step in range(steps)]
    assert sum(ran) == computed
    assert all(ran[: stepcache.FIRST])
    assert ran[-1]


def test_a_negative_prompts_steps_are_extrapolated_apart(loaded: Callable[[Plan], Denoising]) -> None:
    job = _job("turn it sepia", 28, negative_prompt="blue", true_guidance=3.0)
    cached = loaded(Plan(profile="fast", step_cache=True))
    found = _picture(cached, job)
    assert cached.applied.step_cache is not None
    assert cached.applied.step_cache.ran == 24
    assert _psnr(found, _picture(loaded(plans.RESIDENT), job)) >= BOUND_DB


def test_a_cancelled_edit_leaves_nothing_behind_for_the_next(loaded: Callable[[Plan], Denoising]) -> None:
    cached = loaded(Plan(profile="fast", step_cache=True))
    expected = _picture(cached, _job("turn it sepia", 28))

    def stop(step: int) -> None:
        if step == 9:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        cached.edit(_job("make it blue", 28), stop)
    assert np.array_equal(_picture(cached, _job("turn it sepia", 28)), expected)


@pytest.mark.parametrize("begin", [0, 7])
def test_a_flow_that_is_straight_loses_nothing(begin: int) -> None:
    """A velocity that changes linearly with the noise is extrapolated exactly, however unequal the steps are."""
    spaced = torch.linspace(1, 0, 29 + begin)
    sigmas = 8.5 * spaced / (1 + 7.5 * spaced)

    class Straight:
        def forward(self, *, encoder_hidden_states: torch.Tensor, step: int) -> tuple[torch.Tensor]:
            return (torch.full((1, 4, 4), 3.0 + 0.5 * float(sigmas[begin + step])),)

    class Pipe:
        num_timesteps = 28
        scheduler = SimpleNamespace(sigmas=sigmas, begin_index=begin or None)

    transformer, prompt = Straight(), torch.zeros(1)
    cache = stepcache.StepCache(transformer)
    cache.start(Pipe())
    for step in range(28):
        (found,) = transformer.forward(encoder_hidden_states=prompt, step=step)
        torch.testing.assert_close(found, torch.full((1, 4, 4), 3.0 + 0.5 * float(sigmas[begin + step])))
    assert cache.ran == 12
