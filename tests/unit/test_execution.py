"""A plan is carried out: where weights lie, in which format, in how many pieces they are moved; and the pixels stay the same."""

import functools
import gc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from storage.contracts import errors, plans
from storage.contracts.plans import TILE_PIXELS, PartPlan, Plan
from tests.unit.test_pipelines import FAMILIES, _ignore, _job, _load, weights
from workers.pipelines import execution, faults, fp8, small, streams
from workers.pipelines.denoising import Denoising

__all__ = ["weights"]

everyone = pytest.mark.parametrize("name", FAMILIES)

TEXT = PartPlan(layers=24, streamed=24)
ALL = PartPlan(layers=57, streamed=57)
THIRD = PartPlan(layers=57, streamed=19)


@pytest.fixture(scope="module")
def resident(weights: Path) -> Callable[[str], Denoising]:
    return functools.cache(lambda name: _load(weights, name))


def _bytes(module: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


@everyone
def test_a_streamed_text_encoder_is_moved_a_layer_at_a_time(
    weights: Path, resident: Callable[[str], Denoising], name: str
) -> None:
    whole = resident(name).pipe
    encoder = whole.text_encoder_2 if name == "small-kontext" else whole.text_encoder
    (stack,) = execution.stacks(encoder)
    ring = _load(weights, name, Plan(text_encoder=TEXT)).applied.text_encoder
    assert len(ring) == len(stack) > 1
    assert ring.slot_bytes == max(streams.packed_bytes(layer) for layer in stack), (
        "a piece is no larger than the largest layer"
    )
    assert ring.device_bytes == 2 * ring.slot_bytes
    assert ring.host_bytes == sum(streams.packed_bytes(layer) for layer in stack)
    assert ring.device_bytes < _bytes(encoder)


@everyone
def test_encoding_a_prompt_copies_each_layer_once_and_then_takes_no_memory(weights: Path, name: str) -> None:
    pipeline = _load(weights, name, Plan(text_encoder=TEXT))
    ring = pipeline.applied.text_encoder
    pipeline.edit(_job(steps=1), _ignore)
    assert ring.copied_bytes == ring.host_bytes
    assert ring.device_bytes == 0, "given back before the first step"
    copied = ring.copied_bytes
    pipeline.edit(_job(steps=1), _ignore)
    assert ring.copied_bytes == copied, "a prompt that was encoded before is remembered"


@everyone
def test_a_streamed_transformer_copies_its_layers_each_step_and_nothing_else(
    weights: Path, resident: Callable[[str], Denoising], name: str
) -> None:
    layers = sum(len(stack) for stack in execution.stacks(resident(name).pipe.transformer))
    pipeline = _load(weights, name, Plan(transformer=ALL))
    ring = pipeline.applied.transformer
    assert len(ring) == layers
    pipeline.edit(_job(steps=2), _ignore)
    before = ring.copied_bytes
    pipeline.edit(_job(steps=4), _ignore)
    assert (ring.copied_bytes - before) / 4 == pytest.approx(ring.host_bytes, abs=ring.slot_bytes / 2)
    outside = [tensor for name_, tensor in pipeline.pipe.transformer.named_parameters() if "blocks" not in name_]
    slots = {slot.untyped_storage().data_ptr() for slot in ring._slots}
    assert outside
    assert not slots & {tensor.untyped_storage().data_ptr() for tensor in outside}


@everyone
@pytest.mark.parametrize(
    "plan",
    [Plan(text_encoder=TEXT), Plan(transformer=ALL, text_encoder=TEXT), Plan(transformer=THIRD)],
    ids=lambda plan: plan.name,
)
def test_streamed_parts_give_the_same_pixels_time_and_again(
    weights: Path, resident: Callable[[str], Denoising], name: str, plan: Plan
) -> None:
    streamed = _load(weights, name, plan)
    for seed in (1, 2):
        expected = resident(name).edit(_job(seed=seed), _ignore)
        assert streamed.edit(_job(seed=seed), _ignore).tobytes() == expected.tobytes()
    assert streamed.facts.plan == plan.name


def test_an_edit_that_was_stopped_midway_leaves_streamed_layers_usable(
    weights: Path, resident: Callable[[str], Denoising]
) -> None:
    def stop(step: int) -> None:
        raise errors.CancelledError("enough")

    streamed = _load(weights, "small-flux2", Plan(transformer=ALL, text_encoder=TEXT))
    with pytest.raises(errors.CancelledError):
        streamed.edit(_job(), stop)
    assert streamed.edit(_job(), _ignore).tobytes() == resident("small-flux2").edit(_job(), _ignore).tobytes()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_layers_take_turns_in_two_slots_whatever_their_number(count: int) -> None:
    """With an odd number the first and the last layer share a slot."""
    torch.manual_seed(0)
    stack = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(count))
    expected = values = torch.randn(2, 8)
    with torch.inference_mode():
        for layer in stack:
            expected = layer(expected)
        ring = streams.streamed([stack], tuple(range(count)), "cpu", 2)
        for _ in range(3):
            found = values
            for layer in stack:
                found = layer(found)
            assert torch.equal(found, expected)
    assert ring.device_bytes == min(count, 2) * ring.slot_bytes


def test_what_is_streamed_keeps_its_address_on_the_device() -> None:
    """Compiled code is not compiled anew for weights that moved."""
    stack = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))
    streams.streamed([stack], (0, 1, 2, 3), "cpu", 2)
    before = [weight.data_ptr() for weight in stack.parameters()]
    assert len(set(before)) == 4, "two slots, in each a weight and a bias"
    with torch.inference_mode():
        for layer in stack:
            layer(torch.zeros(1, 8))
    assert [weight.data_ptr() for weight in stack.parameters()] == before


@everyone
def test_an_fp8_transformer_keeps_only_its_modulations_and_ends_in_bf16(
    weights: Path, resident: Callable[[str], Denoising], name: str
) -> None:
    pipeline = _load(weights, name, Plan(profile="fast", transformer=PartPlan(format="fp8", layers=57)))
    transformer = pipeline.pipe.transformer
    quantised = [module for module in transformer.modules() if isinstance(module, fp8.Fp8Linear)]
    layers = [layer for stack in execution.stacks(resident(name).pipe.transformer) for layer in stack]
    assert pipeline.applied.quantised == len(quantised) == sum(len(list(fp8.linears(layer))) for layer in layers) > 10
    left = [
        path for path, module in transformer.named_modules() if isinstance(module, torch.nn.Linear) and "blocks" in path
    ]
    assert all("norm" in path for path in left), left
    pictures = [np.asarray(one.edit(_job(), _ignore), np.float32) for one in (pipeline, resident(name))]
    assert 0 < np.abs(pictures[0] - pictures[1]).max() <= 8


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_an_fp8_product_is_as_near_as_three_bits_of_mantissa_allow(dtype: torch.dtype) -> None:
    """e4m3 rounds by up to 1/16, 2.6 % root mean square for weights and activations each; together 3.7 %."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 512, dtype=dtype)
    values = torch.randn(2, 70, 256, dtype=dtype) * torch.logspace(-3, 3, 70, dtype=dtype)[:, None]
    with torch.inference_mode():
        expected, found = linear(values).float(), fp8.Fp8Linear(linear)(values)
        assert found.dtype == dtype
        for row in (0, 35, 69):
            error = (found[:, row].float() - expected[:, row]).norm() / expected[:, row].norm()
            assert error < 0.05, "each token has a scale of its own"


def test_quantised_weights_take_half_the_bytes() -> None:
    linear = torch.nn.Linear(1024, 1024, bias=False, dtype=torch.bfloat16)
    assert _bytes(fp8.Fp8Linear(linear)) == pytest.approx(_bytes(linear) / 2, rel=0.01)


@pytest.mark.timeout(900)
def test_compiled_layers_give_nearly_the_same_picture_and_can_be_given_up(
    weights: Path, resident: Callable[[str], Denoising]
) -> None:
    plan = Plan(compiled=True, transformer=THIRD)
    compiled = _load(weights, "small-klein", plan)
    assert len(compiled.applied.compiled) == 3
    for width, height in ((128, 128), (160, 96), (96, 96)):
        expected = np.asarray(resident("small-klein").edit(_job(width=width, height=height), _ignore), np.int16)
        found = np.asarray(compiled.edit(_job(width=width, height=height), _ignore), np.int16)
        assert np.abs(found - expected).max() <= 1
        if width == 128:
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "no size is compiled for anew"
    assert compiled.facts.plan.endswith("compiled")
    compiled.applied.compute_eagerly()
    assert compiled.edit(_job(), _ignore).tobytes() == resident("small-klein").edit(_job(), _ignore).tobytes()


def test_a_machine_that_cannot_compile_computes_without_and_says_so(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = _load(weights, "small-klein", Plan(compiled=True))

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no C compiler")

    for layer in pipeline.applied.compiled:
        layer._compiled_call_impl = broken
    pipeline.warm_up(_job())
    assert "compiled" not in pipeline.facts.plan
    assert not pipeline.plan.compiled
    assert pipeline.edit(_job(), _ignore).size == (128, 128)


def test_compiling_can_wait_until_after_the_first_edit(weights: Path, resident: Callable[[str], Denoising]) -> None:
    pipeline = _load(weights, "small-klein", Plan(compiled=True))
    assert pipeline.postpone_compiling()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert pipeline.edit(_job(), _ignore).tobytes() == resident("small-klein").edit(_job(), _ignore).tobytes()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before, "nothing was compiled"
    assert pipeline.facts.plan == "bf16, resident"
    pipeline.applied.resume_compiled()
    assert pipeline.facts.plan == "bf16, resident, compiled"
    assert all(layer._compiled_call_impl is not None for layer in pipeline.applied.compiled)


def test_what_is_not_compiled_or_must_be_has_nothing_to_postpone(weights: Path) -> None:
    assert not _load(weights, "small-klein").postpone_compiling()
    fast = Plan(profile="fast", compiled=True, transformer=PartPlan(format="fp8", layers=56))
    assert not _load(weights, "small-klein", fast).postpone_compiling()


def test_a_model_that_fails_whatever_it_does_says_why(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = _load(weights, "small-klein")
    monkeypatch.setattr(pipeline, "call", lambda job: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pipeline.warm_up(_job())


@pytest.mark.parametrize(
    "exc",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_every_way_of_having_no_memory_is_told_as_such(exc: RuntimeError) -> None:
    with pytest.raises(errors.OutOfMemoryError), faults.translated():
        raise exc


def test_a_fault_of_the_gpu_is_told_from_want_of_memory_and_from_a_bug() -> None:
    with pytest.raises(errors.GpuFaultError), faults.translated():
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="a bug"), faults.translated():
        raise RuntimeError("a bug")


class _Activation:
    alive = 0

    def __init__(self) -> None:
        type(self).alive += 1

    def __del__(self) -> None:
        type(self).alive -= 1


def test_memory_is_given_back_only_when_nothing_holds_the_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(_Activation.alive))

    def denoise() -> None:
        kept = _Activation()
        raise torch.OutOfMemoryError(f"no memory beside {kept}")

    with pytest.raises(errors.OutOfMemoryError), faults.translated():
        denoise()
    assert alive == [0]


def test_a_picture_is_rounded_as_diffusers_rounds_it() -> None:
    from diffusers.image_processor import VaeImageProcessor

    from workers.pipelines.denoising import _picture

    pixels = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float32).to(torch.bfloat16)
    processor = VaeImageProcessor()
    (theirs,) = processor.numpy_to_pil(processor.pt_to_numpy(pixels[None]))
    assert np.array_equal(np.asarray(_picture(pixels)), np.asarray(theirs))


def test_the_class_that_ran_is_told_when_a_mask_asks_for_another(weights: Path) -> None:
    pipeline = _load(weights, "small-kontext")
    pipeline.edit(_job(), _ignore)
    assert pipeline.facts.pipeline == "FluxKontextPipeline"
    pipeline.edit(_job(mask=Image.new("L", (128, 128), 255)), _ignore)
    assert pipeline.facts.pipeline == "FluxKontextInpaintPipeline"


def test_a_part_with_other_layers_than_planned_for_streams_the_same_share() -> None:
    assert execution._turns(PartPlan(layers=56, streamed=28), 4) == (0, 2)
    assert execution._turns(PartPlan(layers=56, streamed=56), 3) == (0, 1, 2)
    assert execution._turns(plans.RESIDENT.transformer, 3) == ()


def test_small_pipelines_have_as_many_layers_as_their_families() -> None:
    for name in small.BUILDERS:
        assert [len(stack) for stack in execution.stacks(small.built(name).transformer)] == [1, 2]


class _Runtime:
    """CUDA's calls that page-lock memory, and which addresses are locked."""

    def __init__(self, error: int = 0) -> None:
        self.locked: dict[int, int] = {}
        self.error = error

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # noqa: N802  (as CUDA calls it)
        if not self.error:
            assert address not in self.locked
            self.locked[address] = size
        return self.error

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802
        del self.locked[address]
        return 0


def _with_runtime(monkeypatch: pytest.MonkeyPatch, runtime: _Runtime) -> streams.Ring:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    stack = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(3))
    return streams.streamed([stack], (0, 1, 2), "cpu", 2)


def test_host_memory_is_page_locked_to_the_byte_and_unlocked_when_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = _Runtime()
    ring = _with_runtime(monkeypatch, runtime)
    assert sorted(runtime.locked.values()) == [ring.slot_bytes] * 3, "not rounded up to a power of two"
    ring.close()
    ring.close()
    assert runtime.locked == {}


def test_host_memory_that_nobody_holds_any_more_is_unlocked_before_it_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = _Runtime()
    ring = _with_runtime(monkeypatch, runtime)
    assert len(runtime.locked) == 3
    del ring
    gc.collect()
    assert runtime.locked == {}


def test_host_memory_that_cannot_be_locked_is_said_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(streams, "_clear_error", lambda: None)
    ring = _with_runtime(monkeypatch, _Runtime(error=2))
    assert not any(packed.is_pinned for packed in ring._host)
    assert "could not be page-locked (error 2)" in caplog.text
    ring.close()


def test_tiles_are_as_large_as_the_plan_counts_and_what_goes_in_has_none() -> None:
    vae = SimpleNamespace(tile_sample_min_size=1024, tile_latent_min_size=128, use_tiling=False)
    vae.enable_tiling = lambda: setattr(vae, "use_tiling", True)
    vae.encode = lambda picture: vae.use_tiling
    for _ in range(2):
        execution._tiled(vae)
        assert vae.tile_sample_min_size**2 == TILE_PIXELS
        assert vae.tile_latent_min_size == 64
    assert vae.encode("picture") is False
    assert vae.use_tiling


def test_large_weights_are_quantised_as_small_ones_are() -> None:
    linear = torch.nn.Linear(32, 2 * fp8.ROWS + 16).requires_grad_(False)
    found = fp8.Fp8Linear(linear)
    for row in (0, fp8.ROWS, 2 * fp8.ROWS + 15):
        restored = found.weight[row].float() * found.scale[0, row]
        assert torch.allclose(restored, linear.weight[row], rtol=0.07, atol=1e-3)
        assert restored.abs().max() == pytest.approx(float(linear.weight[row].abs().max()), rel=1e-5)


@pytest.mark.parametrize(("wraps", "more"), [(True, 1), (False, 0)])
def test_only_where_the_first_layer_follows_the_last_it_is_sent_again(wraps: bool, more: int) -> None:
    stack = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))
    ring = streams.streamed([stack], tuple(range(4)), "cpu", 2, wraps=wraps)
    for layer in stack:
        layer(torch.zeros(1, 8))
    assert ring.copied_bytes == ring.host_bytes + more * ring.host_bytes // 4
