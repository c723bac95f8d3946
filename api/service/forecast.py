"""What is to be expected: who is there, and what runs on each target took. Read now and then, kept in memory."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from api.service.kept import Kept
from storage import fleet
from storage.contracts import catalog, estimates, generations
from storage.contracts.geometry import Canvas
from storage.contracts.samples import Sample, Statistics, Target, statistics_of
from storage.ledger import call, control, presence, usage
from storage.queues import queues_of_worker

Worker = Mapping[str, Any]
Fleet = Mapping[str, Worker]


@dataclass(frozen=True, kw_only=True)
class Present:
    """The GPU workers by name, and by each queue that they serve; the workers of text encoders by name."""

    workers: Fleet
    text_encoders: Fleet
    serving: Mapping[str, Sequence[Worker]]


@dataclass(frozen=True, kw_only=True)
class Read:
    """A model's samples as they were read, and what was made of them since."""

    samples: Mapping[Target, Sequence[Sample]]
    statistics: dict[Target, Statistics] = field(default_factory=dict)
    expected: dict[tuple[Target, estimates.Ask], estimates.Estimate | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is to be expected of an edit on one target; times and prices as p10, p50 and p90."""

    gpu_type: str
    region: str
    workers: int
    state: str
    warm_ms: Mapping[str, int] | None = None
    cold_ms: Mapping[str, int] | None = None
    cost_usd: Mapping[str, float] | None = None
    basis: str = "nothing like it has run here; `darkroom probe` fills this in"
    runs: int = 0
    is_measured: bool = False


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why a queued generation is not running yet; `percent` of the model is loaded with `loading`."""

    reason: Literal["paused", "no_worker", "cold", "loading", "turn"]
    percent: int | None = None


class Forecasts:
    """Of all models, for all callers: nothing in them tells one tenant of another."""

    def __init__(self, ledger: call.AsyncLedger, known: catalog.Catalog) -> None:
        self._ledger = ledger
        self._known = known
        self._present = Kept(self._read_present)
        self._paused = Kept(lambda: ledger.run(control.paused()))
        self._samples: dict[str, Kept[Read]] = {}

    async def _read_present(self) -> Present:
        present = await self._ledger.run(presence.present())
        workers = fleet.gpu_workers(present)
        serving: dict[str, list[Worker]] = defaultdict(list)
        for one in workers.values():
            for queue in queues_of_worker(one["models"], one["gpu_type"], one["region"]):
                serving[queue].append(one)
        return Present(workers=workers, text_encoders=fleet.text_encoders(present), serving=serving)

    async def present(self) -> Present:
        """Who is there. Raises `errors.StoreUnavailableError`."""
        return await self._present.get()

    async def fleet(self) -> Fleet:
        """GPU workers by name. Raises `errors.StoreUnavailableError`."""
        return (await self._present.get()).workers

    async def samples(self, model: str) -> Mapping[Target, Sequence[Sample]]:
        """A model's samples by target. Raises `errors.StoreUnavailableError`."""
        return (await self._read(model)).samples

    async def _read(self, model: str) -> Read:
        async def read() -> Read:
            return Read(samples=await self._ledger.run(usage.samples_of(model)))

        if model not in self._samples:
            self._samples[model] = Kept(read)
        return await self._samples[model].get()

    async def statistics(self, target: Target) -> Statistics:
        """A target's samples in short. Raises `errors.StoreUnavailableError`."""
        read = await self._read(target.model)
        if target not in read.statistics:
            read.statistics[target] = statistics_of(read.samples.get(target, ()))
        return read.statistics[target]

    async def served_queues(self) -> frozenset[str]:
        """Queues that some worker serves just now. Raises `errors.StoreUnavailableError`."""
        return frozenset((await self._present.get()).serving)

    async def targets(self, model: str) -> list[Target]:
        """Where a model has run or could run now, and on every GPU type that the catalog lists. Raises as `fleet`."""
        live = {
            Target(model=model, gpu_type=one["gpu_type"], region=one["region"])
            for one in (await self.fleet()).values()
            if model in one["models"]
        }
        tried = set(await self.samples(model))
        known = {target.gpu_type for target in live | tried}
        listed = {
            Target(model=model, gpu_type=gpu_type, region=self._known.regions[0])
            for gpu_type in self._known.models[model].gpu_types
            if gpu_type not in known
        }
        order = list(self._known.gpu_types)
        return sorted(
            (one for one in live | tried | listed if one.gpu_type in order),
            key=lambda one: (order.index(one.gpu_type), one.region),
        )

    async def estimate(self, target: Target, ask: estimates.Ask) -> estimates.Estimate | None:
        """How long an edit takes there once the model is loaded. Raises `errors.StoreUnavailableError`."""
        read = await self._read(target.model)
        if (target, ask) not in read.expected:
            read.expected[target, ask] = estimates.estimated(read.samples.get(target, ()), ask)
        return read.expected[target, ask]

    async def cold_start_ms(self, target: Target) -> float | None:
        """How long the model takes to load there. Raises `errors.StoreUnavailableError`."""
        cold_start = (await self.statistics(target)).cold_start
        return cold_start.p50 if cold_start else None

    async def expected(self, target: Target, ask: estimates.Ask) -> Expected:
        """What is to be expected of an edit there. Raises `errors.StoreUnavailableError`."""
        model, gpu = self._known.models[target.model], self._known.gpu_types[target.gpu_type]
        states = [state.get("state") for state in await self.states(target)]
        here = Expected(
            gpu_type=target.gpu_type,
            region=target.region,
            workers=len(states),
            state=next((one for one in ("warm", "starting", "cold", "failed") if one in states), "no worker"),
        )
        estimate, cold_ms = await self.estimate(target, ask), await self.cold_start_ms(target)
        if estimate is None:
            return here
        times = {"p10": estimate.p10, "p50": estimate.p50, "p90": estimate.p90}
        return dataclasses.replace(
            here,
            warm_ms={name: round(value) for name, value in times.items()},
            cold_ms=None if cold_ms is None else {name: round(value + cold_ms) for name, value in times.items()},
            cost_usd={
                name: round(estimates.price_usd(model, gpu, pixels=ask.pixels, seconds=value / 1000), 6)
                for name, value in times.items()
            },
            basis=estimate.sentence,
            runs=estimate.runs,
            is_measured=estimate.basis == "measured",
        )

    async def states(self, target: Target) -> list[Mapping[str, Any]]:
        """What each worker of a target says of the model. Raises `errors.StoreUnavailableError`."""
        return [
            one["models"][target.model]
            for one in (await self.fleet()).values()
            if target.model in one["models"] and (one["gpu_type"], one["region"]) == (target.gpu_type, target.region)
        ]

    async def eta_ms(self, generation: generations.Generation) -> int | None:
        """Milliseconds until a queued or running generation is likely to be over; None when nothing is known.

        Only work ahead on the generation's own queue counts, and only workers that serve that queue.
        """
        model, edit = self._known.models.get(generation.edit.model), generation.edit
        if model is None or generation.status.terminal:
            return None
        ask = ask_of(model, edit.canvas, edit.passes, len(edit.references), upsampled=edit.upsampled)
        if generation.status is generations.Status.PROCESSING:
            return await self._left_ms(generation, ask)
        serving = await self._serving(generation)
        targets = Counter(Target(model=edit.model, gpu_type=one["gpu_type"], region=one["region"]) for one in serving)
        likely = {
            target: estimate.p50 for target in targets if (estimate := await self.estimate(target, ask)) is not None
        }
        if not likely:
            return None
        # Workers together finish so many in a millisecond. Of what runs now, half is over on average.
        rate = sum(targets[target] / p50 for target, p50 in likely.items())
        quickest = min(likely.values())
        half = quickest / 2 if all(one.get("busy") for one in serving) else 0
        is_warm = any(one["models"][edit.model].get("state") == "warm" for one in serving)
        loading = 0.0 if is_warm else min([await self.cold_start_ms(target) or 0.0 for target in likely])
        return round((generation.position or 0) / rate + half + quickest + loading)

    async def waiting_for(self, generation: generations.Generation) -> Waiting | None:
        """Why a queued generation is not running yet. Raises `errors.StoreUnavailableError`."""
        if generation.status is not generations.Status.QUEUED:
            return None
        paused, model = await self._paused.get(), generation.edit.model
        if control.holds(paused, model=model, tenant=generation.tenant, queue=generation.queue):
            return Waiting(reason="paused")
        states = [one["models"][model] for one in await self._serving(generation)]
        if not states:
            return Waiting(reason="no_worker")
        named = [state.get("state") for state in states]
        if "warm" in named:
            return Waiting(reason="turn")
        if "starting" in named:
            return Waiting(reason="loading", percent=max(int(state.get("percent", 0)) for state in states))
        return Waiting(reason="cold")

    async def _serving(self, generation: generations.Generation) -> Sequence[Worker]:
        return (await self._present.get()).serving.get(generation.queue, ())

    async def _left_ms(self, generation: generations.Generation, ask: estimates.Ask) -> int | None:
        if generation.gpu_type is None or generation.region is None:
            return None
        target = Target(model=generation.edit.model, gpu_type=generation.gpu_type, region=generation.region)
        estimate = await self.estimate(target, ask)
        if estimate is None:
            return None
        loading = 0.0
        if generation.phase is generations.Phase.LOADING:
            loading = (await self.cold_start_ms(target) or 0.0) * (1 - generation.loaded_percent / 100)
        return round(estimate.p50 * (1 - min(1, generation.step / generation.edit.steps)) + loading)


def ask_of(model: catalog.Model, canvas: Canvas, passes: int, references: int, *, upsampled: bool) -> estimates.Ask:
    """An edit as it is estimated: what is rendered, which for large ones is less than what comes out."""
    usual = canvas.pixels or model.frame.usual_pixels
    pixels = canvas.size.pixels if canvas.size else usual
    rendered = min(pixels, model.frame.render_pixels or pixels)
    read = min(1, references) if model.stitches else references
    return estimates.Ask(pixels=rendered, steps=passes, references=read, upsampled=upsampled)
