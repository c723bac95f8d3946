"""How long the GPU is idle between queued jobs: the worker's conveyor around a real pipeline, with stores in memory.

What Valkey and the object store cost on top is not on the pipeline's thread; `make bench-overhead` measures that with real ones.
"""

import contextlib
import io
import time
from collections.abc import Iterator
from typing import Any

from PIL import Image

from bench.gpu import building, measuring
from bench.gpu.cases import Machine
from bench.gpu.measuring import Row
from storage.contracts import edits, generations
from storage.contracts.geometry import Canvas, Size
from storage.ledger import call, claims
from workers.claiming import Claiming
from workers.conveyor import Conveyor, Phases
from workers.decoding.pool import Decoders
from workers.filters import Filters, WordFilter
from workers.finishing import Finishing
from workers.leases import Keeper
from workers.pipelines.denoising import Denoising
from workers.preparing import Preparing
from workers.retrying import Retrying
from workers.running import Running

MODEL = "flux-2-klein-4b"
JOBS = 24
WARM_UP_JOBS = 4
"""The first ones, from which the conveyor learns how far to look ahead."""


class Stores:
    """A ledger with some claims to give, and an object store with one photograph."""

    def __init__(self, claims: list[generations.Claim], picture: bytes) -> None:
        self._claims, self._picture = claims, picture
        self.stored_bytes = 0

    def run(self, call: call.Call[Any]) -> Any:
        """Answer a call as the ledger does when nothing goes wrong."""
        if call.script == "claim":
            return self._claims.pop(0) if self._claims else None
        return True

    def get(self, key: str) -> bytes:
        """Any input."""
        return self._picture

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Count, and forget."""
        self.stored_bytes += len(body)

    def delete_prefix(self, prefix: str) -> int:
        """Nothing is kept."""
        return 0


def rows(machine: Machine) -> Iterator[Row]:
    """Klein 4B, four steps with a reference, one job after the other."""
    jobs = JOBS if machine.device == "cuda" else WARM_UP_JOBS + 2
    pipe = building.pipe(MODEL, machine.device, machine.dtype)
    pipeline = building.loaded(MODEL, pipe, machine.plan(MODEL, "exact", 1), machine.device)
    pipeline.warm_up(measuring.job(1, machine.side, 2))
    stores = Stores([_claim(number, machine.side) for number in range(jobs)], _photograph(machine.side))
    began = time.perf_counter()
    idle = _served(machine, stores, pipeline)
    seconds = (time.perf_counter() - began) / jobs
    assert stores.stored_bytes, "pictures came out"
    yield Row(
        model=MODEL, label="worker, queued jobs", references=1, steps=4, edit_s=seconds, edits=jobs,
        plan=pipeline.facts.plan, idle_ms=measuring.p50(list(idle[WARM_UP_JOBS:])),
        note=f"idle between jobs p50 {measuring.p50(list(idle[WARM_UP_JOBS:])):.1f} ms, most {max(idle[WARM_UP_JOBS:]):.1f} ms",
    )  # fmt: skip


def _served(machine: Machine, stores: Stores, pipeline: Denoising) -> tuple[float, ...]:
    with contextlib.ExitStack() as stack:
        keeper = stack.enter_context(contextlib.closing(Keeper(stores, lease_s=10, beat_s=2, stall_limit_s=300)))
        decoders = stack.enter_context(contextlib.closing(Decoders()))
        claimant = claims.Claimant(worker="bench", gpu_type=machine.gpu_type)
        filters = Filters(words=WordFilter(()), images=None)
        phases = Phases(
            claiming=Claiming(claimant=claimant, queues=["q"], ledger=stores, keeper=keeper),
            preparing=Preparing(
                known=machine.known, objects=stores, filters=filters, fetch=lambda url, field: b"", decoder=decoders
            ),
            running=Running(filters=filters, pipeline=lambda model, on_loaded: pipeline),
            finishing=Finishing(
                claimant=claimant,
                known=machine.known,
                ledger=stores,
                objects=stores,
                filters=filters,
                deliver=lambda *_: True,
            ),
            retrying=Retrying(claimant=claimant, ledger=stores, max_attempts=1, rest_s=1),
        )
        conveyor = Conveyor(phases, keeper, look_ahead_s=3)
        conveyor.serve()
        conveyor.close()
        return conveyor.idle_ms


def _claim(number: int, side: int) -> generations.Claim:
    edit = edits.Edit(
        model=MODEL, prompt=f"make it blue, job {number}", references=(edits.StoredPicture(key="k"),),
        canvas=Canvas(size=Size(width=side, height=side)), steps=4, guidance=1, seed=number, output_format="webp", quality=80,
    )  # fmt: skip
    # They have all waited since the start: whatever the pipeline waits for is idle time.
    return generations.Claim(
        id=f"g{number}",
        tenant="t",
        token=1,
        attempt=1,
        execution_limit_s=600,
        edit=edit,
        queue="q",
        waited_ms=3_600_000,
    )


def _photograph(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 80).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()
