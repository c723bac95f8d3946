"""A stand-in for a GPU: it sleeps as long as it is told, and stamps the seed into the pixels it returns.

For benchmarks, fault tests and integration tests of clients. A model uses it by `pipeline = "stand_in"` in the catalog;
`weights.source` says what it does: `"20"` sleeps 20 ms in all, `"20 hang at 3"` never finishes the third step, `"20 die at 3"`
takes the process down there, `"20 loading 5000"` takes five seconds to load, `"20, h100 5"` sleeps 5 ms on
that GPU type; `"2 a step"` sleeps 2 ms for each step and sixteenth of a megapixel, give or take a tenth.
"""

import os
import random
import re
import signal
import threading
import time
from pathlib import Path

from PIL import Image

from storage.contracts import errors
from storage.contracts.plans import Plan
from storage.contracts.weights import Weights
from workers.pipelines.base import Facts, Job, OnLoaded, OnPreview, OnStep, OnToken

BITS = 32
STAMP_HEIGHT = 8
"""The topmost rows show the seed: 32 equal fields from the most significant bit on, white for one."""

_SOURCE = re.compile(r"(\d+)( a step)?(?: (hang|die) at (\d+))?(?: loading (\d+))?((?:, [\w-]+ \d+)*)")


class StandInPipeline:
    """Sleeps instead of denoising."""

    def __init__(self, duration_s: float, fault: str | None, at_step: int, plan: Plan, *, is_a_step: bool) -> None:
        self._duration_s = duration_s
        self._is_a_step = is_a_step
        self._fault = fault
        self._at_step = at_step
        self._plan = plan

    @property
    def facts(self) -> Facts:
        """See `base.Pipeline`."""
        plan = self._plan
        return Facts(
            pipeline="StandInPipeline", dtype="none", plan=plan.name, profile=plan.profile, device="none", libraries={}
        )

    @property
    def encodes(self) -> bool:
        """See `base.Pipeline`."""
        return True

    def text(self, prompt: str) -> bytes:
        """See `base.Pipeline`."""
        raise NotImplementedError

    def postpone_compiling(self) -> bool:
        """See `base.Pipeline`."""
        return False

    def warm_up(self, job: Job) -> None:
        """See `base.Pipeline`. Sleeping needs none."""

    def close(self) -> None:
        """See `base.Pipeline`."""

    def upsample(self, job: Job, temperature: float, on_token: OnToken) -> str:
        """See `base.Pipeline`."""
        raise NotImplementedError

    def edit(self, job: Job, on_step: OnStep, on_preview: OnPreview | None = None) -> Image.Image:
        """See `base.Pipeline`."""
        began, duration_s = time.perf_counter(), self._duration_s
        if self._is_a_step:
            duration_s *= job.steps * job.width * job.height / 2**16 * random.gauss(1, 0.05)
        for step in range(1, job.steps + 1):
            if step == self._at_step:
                self._fail()
            # Against the clock, so that the sum of many short sleeps is not longer than the whole.
            time.sleep(max(0.0, began + duration_s * step / job.steps - time.perf_counter()))
            on_step(step)
            if on_preview is not None:
                on_preview(Image.new("RGB", (job.width // 16, job.height // 16), "grey"))
        picture = job.references[0].resize((job.width, job.height)) if job.references else _blank(job)
        stamp = Image.new("1", (BITS, 1))
        stamp.putdata([job.seed >> bit & 1 for bit in reversed(range(BITS))])
        picture.paste(stamp.resize((job.width, STAMP_HEIGHT), Image.Resampling.NEAREST).convert("RGB"), (0, 0))
        return picture

    def _fail(self) -> None:
        if self._fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()


def _blank(job: Job) -> Image.Image:
    return Image.new("RGB", (job.width, job.height), "grey")


def stamped_seed(picture: Image.Image) -> int:
    """The seed that a stand-in's picture shows."""
    fields = picture.convert("L").crop((0, 0, picture.width, STAMP_HEIGHT)).resize((BITS, 1), Image.Resampling.BOX)
    return sum(1 << BITS - 1 - n for n, level in enumerate(fields.tobytes()) if level > 127)


def load(weights: Weights, folder: Path | None, gpu_type: str, plan: Plan, on_loaded: OnLoaded) -> StandInPipeline:
    """Read `weights.source`. Raises `errors.ModelUnavailableError` when it cannot be read."""
    match = _SOURCE.fullmatch(weights.source)
    if match is None:
        message = f"a stand-in's weights.source is like '20' or '20 hang at 3'; got {weights.source!r}"
        raise errors.ModelUnavailableError(message)
    milliseconds, a_step, fault, step, loading, elsewhere = match.groups()
    by_gpu_type = dict(pair.split(" ") for pair in elsewhere.split(", ")[1:])
    milliseconds = by_gpu_type.get(gpu_type, milliseconds)
    for tenth in range(10):
        time.sleep(int(loading or 0) / 10_000)
        on_loaded((tenth + 1) / 10)
    return StandInPipeline(int(milliseconds) / 1000, fault, int(step or 0), plan, is_a_step=a_step is not None)
