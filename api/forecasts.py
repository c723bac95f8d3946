"""What is to be expected: who is there, and what runs on each target took. Read now and then, kept in memory."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.contracts import catalog, estimates, generations
from storage.contracts.samples import Sample, Target
from storage.ledger import calls
from storage.queues import queues_of_worker

KEPT_S = 1.0
"""How long what was read is used again."""

Fleet = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is to be expected of an edit on one target; times and prices at the 10th, 50th and 90th of a hundred."""

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


class Forecasts:
    """Of all models, for all callers: nothing in them tells one tenant of another."""

    def __init__(self, ledger: calls.AsyncLedger, known: catalog.Catalog) -> None:
        self._ledger = ledger
        self._known = known
        self._fleet: tuple[float, Fleet] = (-KEPT_S, {})
        self._samples: dict[str, tuple[float, Mapping[Target, Sequence[Sample]]]] = {}

    async def fleet(self) -> Fleet:
        """GPU workers by name. Raises `errors.StoreUnavailableError`."""
        if time.monotonic() - self._fleet[0] > KEPT_S:
            present = await self._ledger.run(calls.present())
            workers = {name: one for name, one in present.items() if one.get("role") == "gpu"}
            self._fleet = (time.monotonic(), workers)
        return self._fleet[1]

    async def samples(self, model: str) -> Mapping[Target, Sequence[Sample]]:
        """A model's samples by target. Raises `errors.StoreUnavailableError`."""
        at, found = self._samples.get(model, (-KEPT_S, {}))
        if time.monotonic() - at > KEPT_S:
            found = await self._ledger.run(calls.samples_of(model))
            self._samples[model] = (time.monotonic(), found)
        return found

    async def served_queues(self) -> frozenset[str]:
        """Queues that some worker serves just now. Raises `errors.StoreUnavailableError`."""
        fleet = (await self.fleet()).values()
        return frozenset(
            queue for one in fleet for queue in queues_of_worker(one["models"], one["gpu_type"], one["region"])
        )

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
        return estimates.estimated((await self.samples(target.model)).get(target, ()), ask)

    async def expected(self, target: Target, ask: estimates.Ask, pixels: int) -> Expected:
        """What is to be expected of an edit of so many `pixels` there. Raises `errors.StoreUnavailableError`."""
        model, gpu = self._known.models[target.model], self._known.gpu_types[target.gpu_type]
        ran = (await self.samples(target.model)).get(target, ())
        states = [state.get("state") for state in await self.states(target)]
        here = Expected(
            gpu_type=target.gpu_type,
            region=target.region,
            workers=len(states),
            state=next((one for one in ("warm", "starting", "cold", "failed") if one in states), "no worker"),
        )
        found, cold_ms = estimates.estimated(ran, ask), estimates.cold_start_ms(ran)
        if found is None:
            return here
        times = {"p10": found.p10, "p50": found.p50, "p90": found.p90}
        return dataclasses.replace(
            here,
            warm_ms={name: round(value) for name, value in times.items()},
            cold_ms=None if cold_ms is None else {name: round(value + cold_ms) for name, value in times.items()},
            cost_usd={
                name: round(estimates.price_usd(model, gpu, pixels=pixels, seconds=value / 1000), 6)
                for name, value in times.items()
            },
            basis=found.sentence,
            runs=found.runs,
            is_measured=found.basis == "measured",
        )

    async def states(self, target: Target) -> list[Mapping[str, Any]]:
        """What each worker of a target says of the model. Raises `errors.StoreUnavailableError`."""
        return [
            one["models"][target.model]
            for one in (await self.fleet()).values()
            if target.model in one["models"] and (one["gpu_type"], one["region"]) == (target.gpu_type, target.region)
        ]

    async def eta_ms(self, found: generations.Generation) -> int | None:
        """Milliseconds until a queued or running generation is likely to be over; None when nothing is known.

        Only work ahead on the generation's own queue counts, and only workers that serve that queue.
        """
        model, edit = self._known.models.get(found.edit.model), found.edit
        if model is None or found.status.terminal:
            return None
        ask = asked(model, edit.canvas.size.pixels if edit.canvas.size else None, edit.steps, len(edit.references))
        serving = [
            one
            for one in (await self.fleet()).values()
            if found.queue in queues_of_worker(one["models"], one["gpu_type"], one["region"])
        ]
        likely: list[float] = []
        loading: list[float] = []
        for one in serving:
            target = Target(model=edit.model, gpu_type=one["gpu_type"], region=one["region"])
            estimate = await self.estimate(target, ask)
            if estimate is not None:
                likely.append(estimate.p50)
                is_warm = one["models"][edit.model].get("state") == "warm"
                cold = estimates.cold_start_ms((await self.samples(edit.model)).get(target, ()))
                loading.append(0 if is_warm else cold or 0)
        if not likely:
            return None
        # Workers together finish so many in a millisecond.
        rate = sum(1 / one for one in likely)
        if found.status is generations.Status.PROCESSING:
            left = 1 - found.step / edit.steps
            return round(left * min(likely))
        # Of what runs now, half is over on average.
        half = 0.5 * min(likely) if all(one.get("busy") for one in serving) else 0
        return round((found.position or 0) / rate + half + min(likely) + min(loading))


def asked(model: catalog.Model, pixels: int | None, steps: int, references: int) -> estimates.Ask:
    """An edit as it is estimated: what is rendered, which for large ones is less than what comes out."""
    usual = model.frame.usual_pixels
    rendered = min(pixels or usual, model.frame.render_pixels or pixels or usual)
    return estimates.Ask(pixels=rendered, steps=steps, references=references)
