"""Times, peaks and errors of edits on a device."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from bench.plans import models
from storage.contracts.plans import CONTEXT_GB
from workers.pipelines.base import Job
from workers.pipelines.denoising import Denoising

PROMPTS = (f"make it blue, number {number}" for number in range(10_000))
"""Each edit has a prompt of its own, so that none is found among those encoded before."""


@dataclass
class Row:
    """One line of the table. Times in seconds (steps in milliseconds), memory in GB (10^9 bytes).

    `share` of the bf16 rate that a large matrix product reached in the same run; `planned` and `peaks` by phase, without the CUDA
    context; `error` of one denoising step's output against bf16, as a share of its norm;
    `idle_ms` of the GPU between queued jobs; `reserved_gb` what torch's allocator had at the most, `others_gb` what is taken
    beside it: the CUDA context and libraries' workspaces.
    """

    model: str
    label: str
    references: int
    plan: str = ""
    steps: int = 0
    edit_s: float | None = None
    edits: int = 0
    step_ms: float | None = None
    share: float | None = None
    warm_up_s: float | None = None
    planned: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    error: float | None = None
    idle_ms: float | None = None
    reserved_gb: float | None = None
    others_gb: float | None = None
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """For the file."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "", {})}


class Clock:
    """Marks moments on the device without waiting for it."""

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._marks: list[Any] = []

    def mark(self) -> None:
        """Now."""
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def gaps_ms(self) -> list[float]:
        """Between each mark and the one before."""
        if self._on_gpu:
            torch.cuda.synchronize()
            return [first.elapsed_time(then) for first, then in zip(self._marks, self._marks[1:], strict=False)]
        return [(then - first) * 1000 for first, then in zip(self._marks, self._marks[1:], strict=False)]


def job(references: int, side: int, steps: int) -> Job:
    """An edit of square pictures."""
    picture = Image.effect_noise((side, side), 80).convert("RGB")
    return Job(
        prompt=next(PROMPTS),
        references=[picture] * references,
        width=side,
        height=side,
        steps=steps,
        guidance=2.5,
        seed=1,
    )


def edits(
    pipeline: Denoising, device: str, references: int, side: int, steps: int, runs: int
) -> tuple[list[float], list[float]]:
    """Seconds of each edit, from prompt to picture, and milliseconds of each denoising step but the first of each."""
    seconds, gaps = [], []
    for _ in range(runs):
        clock = Clock(device)
        wanted = job(references, side, steps)
        began = time.perf_counter()
        pipeline.edit(wanted, lambda step, clock=clock: clock.mark())  # type: ignore[misc]
        seconds.append(time.perf_counter() - began)
        gaps += clock.gaps_ms()
    return seconds, gaps


def note_memory(row: Row) -> None:
    """Fill in what the device's memory was taken by since the last call."""
    free, total = torch.cuda.mem_get_info()
    row.reserved_gb = round(torch.cuda.max_memory_reserved() / 1e9, 2)
    row.others_gb = round((total - free - torch.cuda.memory_reserved()) / 1e9, 2)
    torch.cuda.reset_peak_memory_stats()


def plain(model: str, pipe: Any, device: str, references: int, side: int, steps: int) -> tuple[float, list[float]]:
    """The same by diffusers alone, called as its documentation shows."""
    clock = Clock(device)

    def after_step(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        clock.mark()
        return {}

    wanted = job(references, side, steps)
    images: Any = list(wanted.references) or None
    more: dict[str, Any] = {}
    if model == "flux-kontext-dev":
        images = wanted.references[0]
        more |= {"max_area": side * side, "_auto_resize": False}
    elif model != "flux-2-dev":
        more["guidance_scale"] = 1.0
    if model != "flux-kontext-dev":
        from bench.gpu.building import TEXT_LAYERS

        more["text_encoder_out_layers"] = TEXT_LAYERS[model]
    began = time.perf_counter()
    pipe(
        prompt=wanted.prompt, image=images, width=side, height=side, num_inference_steps=steps,
        generator=torch.Generator("cpu").manual_seed(1), callback_on_step_end=after_step,
        callback_on_step_end_tensor_inputs=[], **more,
    )  # fmt: skip
    return time.perf_counter() - began, clock.gaps_ms()


def p50(values: list[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None


def step_flops(model: str, references: int, side: int) -> int:
    """Floating-point operations of one denoising step, counted on shapes alone."""
    part, tokens = models.transformer(model), (side // 16) ** 2 * (1 + references)
    with FlopCounterMode(display=False) as counter:
        models.step(model, part, tokens)
    return int(counter.get_total_flops())


def matmul_flops_per_s(device: str, side: int, dtype: torch.dtype = torch.bfloat16) -> float:
    """What a large matrix product reaches here: the roof that steps are compared with."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        left @ right
    clock = Clock(device)
    clock.mark()
    for _ in range(10):
        left @ right
        clock.mark()
    return 2 * side**3 / ((p50(clock.gaps_ms()) or 1.0) / 1000)


def step_output(model: str, part: Callable[..., Any], device: str, dtype: torch.dtype, tokens: int) -> torch.Tensor:
    """One denoising step of the same random input each time."""
    generator = torch.Generator(device).manual_seed(0)

    def there(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            # Positions are zeros: every token has the same.
            plain = torch.randn(value.shape, generator=generator, device=device, dtype=torch.float32)
            return (plain * 0 if value.shape[-1] in (3, 4) else plain).to(dtype)
        return value

    inputs: dict[str, Any] = {}

    def recorded(**named: Any) -> None:
        inputs.update(named)

    models.step(model, recorded, tokens)
    # As edits are computed: under inference_mode layers would be compiled anew.
    with torch.no_grad():
        output: torch.Tensor = part(**{name: there(value) for name, value in inputs.items()})[0]
    return output.float()


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of the difference's norm to the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())


def worst_ratio(row: Row) -> float | None:
    """The highest peak against the highest sum, the context counted in both; None where nothing is counted."""
    if not row.peaks or not row.planned:
        return None
    return (max(row.peaks.values()) + CONTEXT_GB) / (max(row.planned.values()) + CONTEXT_GB)


def timed(action: Callable[[], object]) -> float:
    """Seconds that something takes, the device's work included."""
    began = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
