"""When memory runs out, what held it is gone before anything else is loaded; and a GPU that failed is told from a bug."""

import dataclasses
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from storage.contracts import errors, plans
from storage.settings import StoreSettings
from tests.unit.test_phases import _prepared
from tests.unit.test_pipelines import _ignore, _job, _load, weights
from workers import loader, running
from workers.filters import Filters, WordFilter
from workers.pipelines import faults, kontext, streams
from workers.pipelines.denoising import Denoising

__all__ = ["weights"]

SMALL = "small-kontext"
Alive = Callable[[], object]


def _exhausted(pipeline: Denoising) -> Alive:
    """Have a transformer find no memory, and be part of a circle, as compiled layers are; whether it is still there."""

    def forward(*arguments: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    transformer = pipeline.pipe.transformer
    transformer.x_embedder.forward = forward
    transformer.__dict__["circle"] = transformer
    return weakref.ref(transformer)


def test_what_ran_out_of_memory_is_gone_before_the_next_plan_is_loaded(weights: Path) -> None:
    first = _load(weights, SMALL)
    is_alive = _exhausted(first)
    there = {"model": first}
    del first
    alive: list[object] = []

    def pipeline(model: str, on_loaded: object) -> Any:
        if not there:
            alive.append(is_alive())
            there["model"] = _load(weights, SMALL)
        return there["model"]

    def relieve(model: str) -> bool:
        there.pop("model").close()
        return True

    filters = Filters(words=WordFilter(()), images=None)
    ran = running.Running(filters=filters, pipeline=pipeline, relieve=relieve)
    ran.edit(dataclasses.replace(_prepared(), job=_job(steps=1)), _ignore)
    assert alive == [None]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Alive]:
    """Of each pipeline that is loaded, none of which has enough memory for an edit: whether it is still there."""
    told: list[Alive] = []
    load = kontext.load

    def exhausted(*arguments: Any) -> Denoising:
        pipeline = load(*arguments)
        told.append(_exhausted(pipeline))
        return pipeline

    monkeypatch.setattr(kontext, "load", exhausted)
    return told


def _model() -> Any:
    model = StoreSettings().read_catalog().model("flux-kontext-dev")
    return model.model_copy(update={"weights": model.weights.model_copy(update={"source": SMALL})})


def test_a_warm_up_that_runs_out_of_memory_leaves_nothing_there(weights: Path, made: list[Alive]) -> None:
    with pytest.raises(errors.OutOfMemoryError):
        loader.Loader(weights, "cpu").load(_model(), plans.RESIDENT, lambda share: None)
    assert [is_alive() for is_alive in made] == [None]


def test_a_load_that_runs_out_of_memory_leaves_nothing_of_its_half(
    weights: Path, made: list[Alive], monkeypatch: pytest.MonkeyPatch
) -> None:
    load = kontext.load

    def half(*arguments: Any) -> None:
        pipeline = load(*arguments)
        with faults.translated():
            pipeline.pipe.transformer.x_embedder.forward()

    monkeypatch.setattr(kontext, "load", half)
    with pytest.raises(errors.OutOfMemoryError):
        loader.Loader(weights, "cpu").load(_model(), plans.RESIDENT, lambda share: None)
    assert [is_alive() for is_alive in made] == [None]


@pytest.mark.parametrize(
    "words", ["CUBLAS_STATUS_ALLOC_FAILED when", "GET was unable to find an engine to execute this computation"]
)
def test_a_library_that_finds_no_memory_says_so_in_its_own_words(words: str) -> None:
    with pytest.raises(errors.OutOfMemoryError), faults.translated():
        raise RuntimeError(words)


@pytest.mark.parametrize("is_broken", [True, False])
def test_a_fault_that_a_library_met_is_told_by_whether_anything_can_be_computed_after_it(
    monkeypatch: pytest.MonkeyPatch, is_broken: bool
) -> None:
    def synchronize() -> None:
        if is_broken:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    with pytest.raises(errors.GpuFaultError if is_broken else RuntimeError), faults.translated():
        raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`")


def test_memory_that_cannot_be_page_locked_fails_nothing_that_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA tells the error once more at the next launch."""
    launched = []

    def launch(*shape: int, device: str) -> None:
        launched.append(device)
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace(cudaHostRegister=lambda *_: 2))
    pages = torch.empty(8, dtype=torch.uint8)
    monkeypatch.setattr(torch, "zeros", launch)
    assert streams._pin(pages) is None
    assert launched == ["cuda"]
