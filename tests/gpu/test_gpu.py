"""On a real GPU: what is streamed, compiled or multiplied in fp8 gives the right picture, and peaks are counted.

Skipped where there is no GPU. Full-size measurements are `python -m bench.gpu`'s business; this takes a minute.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from storage.contracts.plans import PartPlan, Plan
from tests.unit.test_pipelines import FAMILIES, _ignore, _job, _weights
from workers.pipelines import small
from workers.pipelines.denoising import Denoising

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; this machine has none"),
]

LEVELS = 1.5
"""Of 256, on average: rounding in bf16 alone gives up to 0.7 (measured on a CPU), and single pixels that differ by 13."""

everyone = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("weights")
    small.write(folder)
    return folder


def _load(folder: Path, name: str, plan: Plan) -> Denoising:
    found: Denoising = FAMILIES[name].load(_weights(name), folder / name, "h200", plan, lambda share: None)
    return found


@everyone
@pytest.mark.parametrize(
    "plan",
    [
        Plan(text_encoder=PartPlan(layers=24, streamed=24)),
        Plan(transformer=PartPlan(layers=57, streamed=57), text_encoder=PartPlan(layers=24, streamed=24)),
        Plan(transformer=PartPlan(layers=57, streamed=20)),
    ],
    ids=lambda plan: plan.name,
)
def test_streamed_layers_give_the_same_pixels(folder: Path, name: str, plan: Plan) -> None:
    expected, streamed = _load(folder, name, Plan()), _load(folder, name, plan)
    for seed in range(5):
        job = _job(seed=seed, prompt=f"make it blue {seed}", steps=8)
        assert streamed.edit(job, _ignore).tobytes() == expected.edit(job, _ignore).tobytes()


@everyone
@pytest.mark.parametrize("streamed", [0, 57])
def test_compiled_layers_give_nearly_the_same_picture(folder: Path, name: str, streamed: int) -> None:
    part = PartPlan(layers=57, streamed=streamed)
    compiled, expected = _load(folder, name, Plan(compiled=True, transformer=part)), _load(folder, name, Plan())
    compiled.warm_up(_job())
    assert compiled.facts.plan.endswith("compiled")
    pictures = [np.asarray(one.edit(_job(), _ignore), np.int16) for one in (compiled, expected)]
    assert np.abs(pictures[0] - pictures[1]).mean() <= LEVELS


@everyone
def test_fp8_products_give_nearly_the_same_picture(folder: Path, name: str) -> None:
    plan = Plan(profile="fast", compiled=True, transformer=PartPlan(format="fp8", layers=57))
    fast, expected = _load(folder, name, plan), _load(folder, name, Plan())
    fast.warm_up(_job())
    pictures = [np.asarray(one.edit(_job(), _ignore), np.int16) for one in (fast, expected)]
    assert np.abs(pictures[0] - pictures[1]).mean() <= LEVELS


def test_peaks_of_each_phase_are_counted(folder: Path) -> None:
    pipeline = _load(folder, "small-flux2", Plan())
    pipeline.edit(_job(), _ignore)
    assert pipeline.facts.phases_gb.keys() == {"encode", "denoise", "decode"}
    assert all(gb > 0 for gb in pipeline.facts.phases_gb.values())


def test_host_memory_is_page_locked_and_given_back(folder: Path) -> None:
    pipeline = _load(folder, "small-flux2", Plan(transformer=PartPlan(layers=56, streamed=56)))
    ring = pipeline.applied.transformer
    assert ring is not None
    assert all(packed.is_pinned for packed in ring._host)
    ring.close()
    assert not any(packed.is_pinned for packed in ring._host)
