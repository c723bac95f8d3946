"""What a worker knows of the other workers: which work they have the models loaded for."""

from collections.abc import Mapping
from typing import Any

from storage import fleet, queues
from storage.contracts import queue_names
from storage.ledger import call, presence


class Others:
    """The fleet as it was a moment ago."""

    def __init__(self, ledger: call.Ledger, worker: str) -> None:
        self._ledger = ledger
        self._worker = worker
        self._warm: tuple[str, ...] = ()
        self._encoded: frozenset[str] = frozenset()

    def look(self) -> None:
        """Read who is there. Raises `errors.StoreUnavailableError`."""
        present = self._ledger.run(presence.present())
        self._encoded = frozenset(model for one in fleet.text_encoders(present).values() for model in one["models"])
        workers = fleet.gpu_workers(present)
        others = [one for name, one in workers.items() if name != self._worker]
        self._warm = tuple(queue for one in others for queue in _warm_queues(one))

    def has_warm(self, model: str) -> bool:
        """Whether some other worker has a model loaded."""
        return any(queue in self._warm for queue in queues.queues_of_worker([model], queue_names.ANY_GPU, ""))

    def encodes(self, model: str) -> bool:
        """Whether some worker of text encoders serves a model."""
        return model in self._encoded

    def warm_queues(self) -> tuple[str, ...]:
        """Queues whose model some other worker has loaded, of those that it serves."""
        return self._warm


def _warm_queues(worker: Mapping[str, Any]) -> tuple[str, ...]:
    warm = [model for model, state in worker["models"].items() if state.get("state") == "warm"]
    return queues.queues_of_worker(warm, worker["gpu_type"], worker["region"])
