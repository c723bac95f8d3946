"""What a tenant may spend in a month, and what a request may come to at the most."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from storage.contracts import access, catalog, edits, estimates

MICRO = 1_000_000


class Budgets:
    """Budgets by tenant, in USD a month; a tenant without one may spend without limit."""

    def __init__(self, budgets: Mapping[str, float], known: catalog.Catalog) -> None:
        self._budgets = budgets
        self._known = known

    def of(self, tenant: str, rights: access.Rights | None = None) -> int | None:
        """A tenant's in millionths of a dollar, for a key with these rights: the smaller of both; None is no budget."""
        budgets = [self._budgets.get(tenant), rights.budget_usd if rights else None]
        return min((round(budget * MICRO) for budget in budgets if budget is not None), default=None)

    def liability(self, edit: edits.Edit, gpu_types: Sequence[str], execution_limit_s: float) -> int:
        """The most that one generation can cost, on the dearest GPU it may run on, in millionths of a dollar."""
        model = self._known.models[edit.model]
        # What is rendered is what costs. Shapes are rounded, upwards by less than a tenth.
        named = edit.canvas.size.pixels if edit.canvas.size else edit.canvas.pixels or 0
        pixels = max(model.frame.max_pixels, round(1.1 * named))
        prices = [
            estimates.price_usd(model, self._known.gpu_types[one], pixels=pixels, seconds=execution_limit_s)
            for one in gpu_types or model.gpu_types
        ]
        return round(max(prices, default=0.0) * MICRO)


def month(now: datetime | None = None) -> str:
    """The month that a generation is counted in: the one it was accepted in, by UTC."""
    return f"{now or datetime.now(UTC):%Y-%m}"
