"""What a worker knows of the other workers: which work they have the models loaded for."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from storage import fleet, queues
from storage.contracts import queue_names
from storage.ledger import call, presence


class Others:
    """The fleet as it was a moment ago. Prompts stay in this worker's `region`."""

    def __init__(self, ledger: call.Ledger, worker: str, region: str = fleet.DEFAULT_REGION) -> None:
        self._ledger = ledger
        self._worker = worker
        self._region = region
        self._warm: tuple[str, ...] = ()
        self._encoders: Mapping[str, frozenset[str]] = {}

    def look(self) -> None:
        """Read who is there. Raises `errors.StoreUnavailableError`."""
        present = self._ledger.run(presence.present())
        states: dict[str, set[str]] = defaultdict(set)
        for one in fleet.text_encoders(present).values():
            for model, state in one["models"].items() if one["region"] == self._region else ():
                states[model].add(str(state.get("state")))
        self._encoders = {model: frozenset(each) for model, each in states.items()}
        workers = fleet.gpu_workers(present)
        others = [one for name, one in workers.items() if name != self._worker]
        self._warm = tuple(queue for one in others for queue in _warm_queues(one))

    def has_warm(self, model: str) -> bool:
        """Whether some other worker has a model loaded."""
        return any(queue in self._warm for queue in queues.queues_of_worker([model], queue_names.ANY_GPU, ""))

    def encodes(self, model: str) -> bool:
        """Whether some worker of text encoders serves a model."""
        return bool(self._encoders.get(model, frozenset()) - {"failed"})

    def is_loading_encoder(self, model: str) -> bool:
        """Whether one is just loading the model's, and none has it yet."""
        states = self._encoders.get(model, frozenset())
        return "starting" in states and "warm" not in states

    def warm_queues(self) -> tuple[str, ...]:
        """Queues whose model some other worker has loaded, of those that it serves."""
        return self._warm


def _warm_queues(worker: Mapping[str, Any]) -> tuple[str, ...]:
    warm = [model for model, state in worker["models"].items() if state.get("state") == "warm"]
    return queues.queues_of_worker(warm, worker["gpu_type"], worker["region"])
