"""Which pipelines are on the device."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from storage.contracts import catalog
from workers.pipelines import base, kontext, stand_in

log = logging.getLogger(__name__)

LOADERS: dict[str, Callable[[catalog.Weights, Path | None, str], base.Pipeline]] = {
    "kontext": kontext.load,
    "stand_in": stand_in.load,
}


class Residency:
    """Loads each model once and keeps it."""

    def __init__(self, known: catalog.Catalog, *, weights_dir: Path, device: str) -> None:
        self._catalog = known
        self._weights_dir = weights_dir
        self._device = device
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
        loaded = LOADERS[found.pipeline](found.weights, folder if folder.is_dir() else None, self._device)
        log.info(
            "%s loaded on %s in %.1f s (weights: %s)", model, self._device, time.monotonic() - began, found.weights.name
        )
        return loaded
