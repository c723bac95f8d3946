"""Where a request may run: any capable worker, a GPU type or several in order, a region, what a price allows."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.service.forecast import Forecasts, ask_of
from api.service.submit import Route
from storage.contracts import catalog, edits, errors, estimates, parameters, planning, queue_names, submissions
from storage.contracts.samples import Target


def pins_of(fields: Mapping[str, Any]) -> submissions.Pins:
    """Read `gpu_type` (one, or a list in order), `region` and `max_cost_usd`. Raises `errors.InvalidInputError`."""
    named = fields.get("gpu_type")
    gpu_types = named if isinstance(named, list) else [] if named in (None, "") else [named]
    if any(not isinstance(one, str) for one in gpu_types) or len(gpu_types) > 16:
        raise errors.InvalidInputError("gpu_type must be a GPU type or a list of at most 16", field="gpu_type")
    region = fields.get("region") or None
    if region is not None and not isinstance(region, str):
        raise errors.InvalidInputError("region must be a string", field="region")
    cost = fields.get("max_cost_usd")
    if isinstance(cost, str):
        cost = parameters.typed(cost, parameters.Parameter(type="number", description=""))
    if cost is not None and (isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 < cost < 1e6):
        message = f"max_cost_usd must be a number above 0; got {parameters.shown(cost)}"
        raise errors.InvalidInputError(message, field="max_cost_usd")
    return submissions.Pins(
        gpu_types=tuple(dict.fromkeys(one.lower() for one in gpu_types)), region=region, max_cost_usd=cost
    )


def check(pins: submissions.Pins, name: str, known: catalog.Catalog) -> None:
    """Whether a model can ever run there. Raises `errors.InvalidInputError` with the nearest that can."""
    model = known.models[name]
    for gpu_type in pins.gpu_types:
        if gpu_type not in known.gpu_types:
            message = f"gpu_type must be one of {', '.join(known.gpu_types)}; got {parameters.shown(gpu_type)}"
            raise errors.InvalidInputError(message, field="gpu_type")
        if gpu_type not in model.gpu_types:
            reason = f"{name} is not served on {gpu_type}, but on {', '.join(model.gpu_types)}"
            if planning.planned(model, known.gpu_types[gpu_type]) is None:
                reason = planning.refusal(known, name, gpu_type).message
            raise errors.InvalidInputError(f"gpu_type: {reason}", field="gpu_type")
    if pins.region is not None and pins.region not in known.regions:
        message = f"region must be one of {', '.join(known.regions)}; got {parameters.shown(pins.region)}"
        raise errors.InvalidInputError(message, field="region")


class Router:
    """Finds the queue of a submission."""

    def __init__(self, known: catalog.Catalog, forecasts: Forecasts) -> None:
        self._known = known
        self._forecasts = forecasts

    async def route(self, submission: submissions.Submission) -> Route:
        """Where it may run. Raises `errors.InvalidInputError` and `errors.StoreUnavailableError`."""
        pins, edit, known = submission.pins, submission.edit, self._known
        check(pins, edit.model, known)
        if not pins:
            return Route(queue=queue_names.of(edit.model))
        model = known.models[edit.model]
        gpu_types = pins.gpu_types
        if pins.max_cost_usd is not None:
            prices = await self._prices(gpu_types or model.gpu_types, pins, edit)
            gpu_types = _affordable(prices, pins)
        chain = tuple(queue_names.of(edit.model, one, pins.region) for one in gpu_types) or (
            queue_names.of(edit.model, queue_names.ANY_GPU, pins.region),
        )
        served = await self._forecasts.served_queues()
        first = next((queue for queue in chain if queue in served), chain[0])
        return Route(
            queue=first,
            chain=chain if len(chain) > 1 else (),
            gpu_types=gpu_types or model.gpu_types,
            is_served=first in served,
        )

    async def _prices(
        self, gpu_types: Sequence[str], pins: submissions.Pins, edit: edits.Edit
    ) -> dict[str, float | None]:
        """The p90 price of an edit by GPU type; None where nothing has run yet."""
        model = self._known.models[edit.model]
        ask = ask_of(model, edit.canvas, edit.passes, len(edit.references), upsampled=edit.upsampled)
        regions = [pins.region] if pins.region else self._known.regions
        prices: dict[str, float | None] = {}
        for gpu_type in gpu_types:
            gpu = self._known.gpu_types[gpu_type]
            fixed = model.price_per_image or model.price_per_megapixel or not gpu.price_per_hour
            if fixed:
                prices[gpu_type] = estimates.price_usd(model, gpu, pixels=ask.pixels, seconds=0)
                continue
            targets = [Target(model=edit.model, gpu_type=gpu_type, region=region) for region in regions]
            ran = [
                one for one in [await self._forecasts.estimate(target, ask) for target in targets] if one is not None
            ]
            # Wherever it may run, it must not cost more.
            longest = max((one.p90 / 1000 for one in ran), default=None)
            prices[gpu_type] = (
                None if longest is None else estimates.price_usd(model, gpu, pixels=ask.pixels, seconds=longest)
            )
        return prices


def _affordable(prices: Mapping[str, float | None], pins: submissions.Pins) -> tuple[str, ...]:
    assert pins.max_cost_usd is not None  # noqa: S101  (asked only then)
    known = {gpu_type: price for gpu_type, price in prices.items() if price is not None}
    within = [gpu_type for gpu_type, price in known.items() if price <= pins.max_cost_usd]
    if not within:
        cheapest = min(known.items(), key=lambda pair: pair[1], default=None)
        reason = "no run yet tells a price; run `darkroom probe`"
        if cheapest is not None:
            reason = f"the cheapest is {cheapest[0]} at ${cheapest[1]:.4f}"
        raise errors.InvalidInputError(f"max_cost_usd: {reason}", field="max_cost_usd")
    # The caller's order stands; without one the cheapest goes first.
    return tuple(within if pins.gpu_types else sorted(within, key=lambda gpu_type: known[gpu_type]))
