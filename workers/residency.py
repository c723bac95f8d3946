"""Which pipelines are on the device."""

import importlib
import logging
import time
from pathlib import Path

from storage.contracts import catalog
from workers.pipelines import base

log = logging.getLogger(__name__)


class Residency:
    """Loads each model once and keeps it."""

    def __init__(self, known: catalog.Catalog, *, weights_dir: Path, gpu_type: str) -> None:
        self._catalog = known
        self._weights_dir = weights_dir
        self._gpu_type = gpu_type
        self._resident: dict[str, base.Pipeline] = {}

    def pipeline(self, model: str) -> base.Pipeline:
        """The model's pipeline, loaded now if it is not yet."""
        if model not in self._resident:
            self._resident[model] = self._load(model)
        return self._resident[model]

    def _load(self, model: str) -> base.Pipeline:
        began = time.monotonic()
        found = self._catalog.model(model)
        folder = self._weights_dir / found.weights.source
        # Each model family is a module with a `load`; a worker imports those it serves, for some bring gigabytes along.
        family = importlib.import_module(f"workers.pipelines.{found.pipeline}")
        loaded: base.Pipeline = family.load(found.weights, folder if folder.is_dir() else None, self._gpu_type)
        log.info("%s loaded in %.1f s (weights: %s)", model, time.monotonic() - began, found.weights.name)
        return loaded
