"""Models that are loaded before they are needed, kept loaded, or let go, on somebody's demand."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage import fleet
from storage.contracts import errors
from storage.contracts.samples import Target
from storage.ledger import call, presence

WARM_S = 900
"""How long a model that was started once is looked after."""
LET_GO_S = 60
LOOK_S = 0.3


@dataclass(frozen=True, kw_only=True)
class Started:
    """A model that is loaded, and where; `startup_ms` 0: it was there already. No worker: the first that comes loads it."""

    gpu_type: str | None = None
    region: str | None = None
    startup_ms: int | None = None


class Warming:
    """Starts and stops models; `limit_s` is how long a start may take."""

    def __init__(self, ledger: call.AsyncLedger, limit_s: float) -> None:
        self._ledger = ledger
        self._limit_s = limit_s

    async def start(self, target: Target, tenant: str, *, keep: bool) -> Started:
        """Load a model for a tenant on a target, whose GPU type and region may be `any`, and wait; `keep` keeps it loaded.

        Raises `errors.ModelUnavailableError`, `errors.TimedOutError` and `errors.StoreUnavailableError`.
        """
        began = time.monotonic()
        workers = await self.workers(target)
        already = _warm(workers, target)
        if already is None or keep:
            how: presence.Wish = "always" if keep else "once"
            await self._ledger.run(presence.want(target, how, tenant=tenant, seconds=WARM_S, worker=already or ""))
        failures = {name: _failures(worker, target) for name, worker in workers.items()}
        while workers:
            warm = _warm(workers, target)
            if warm is not None:
                startup_ms = 0 if already else round((time.monotonic() - began) * 1000)
                there = workers[warm]
                return Started(gpu_type=there["gpu_type"], region=there["region"], startup_ms=startup_ms)
            for name, worker in workers.items():
                if _failures(worker, target) > failures.get(name, 0):
                    raise errors.ModelUnavailableError(str(worker["models"][target.model].get("reason")))
            if time.monotonic() - began > self._limit_s:
                raise errors.TimedOutError("The model is still loading")
            await asyncio.sleep(LOOK_S)
            workers = await self.workers(target)
        return Started()

    async def stop(self, target: Target, tenant: str) -> bool:
        """Keep a model loaded for a tenant no longer, and have it let go once it is idle. False: another tenant keeps it.

        Raises `errors.StoreUnavailableError`.
        """
        return bool(await self._ledger.run(presence.want(target, "never", tenant=tenant, seconds=LET_GO_S)))

    async def workers(self, target: Target) -> dict[str, Mapping[str, Any]]:
        """Workers that may load it, as they are now and not as they were a moment ago."""
        present = fleet.gpu_workers(await self._ledger.run(presence.present()))
        return {
            name: worker
            for name, worker in present.items()
            if target.model in worker["models"]
            and target.gpu_type in ("any", worker["gpu_type"])
            and target.region in ("any", worker["region"])
        }


def _warm(workers: Mapping[str, Mapping[str, Any]], target: Target) -> str | None:
    """The name of one that has it loaded."""
    return next(
        (name for name, worker in workers.items() if worker["models"][target.model].get("state") == "warm"), None
    )


def _failures(worker: Mapping[str, Any], target: Target) -> int:
    return int(worker["models"][target.model].get("failures", 0))
