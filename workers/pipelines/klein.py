"""FLUX.2 [klein]: distilled to a few steps. Its KV variant reads the references once and remembers what it saw."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import Flux2KleinKVPipeline, Flux2KleinPipeline

from storage.contracts.plans import Plan
from storage.contracts.weights import Weights
from workers.pipelines import loading
from workers.pipelines.base import Job, OnLoaded
from workers.pipelines.flux2 import Flux2

log = logging.getLogger(__name__)

TEXT_LAYERS = (9, 18, 27)


class KleinPipeline(Flux2):
    """diffusers' `Flux2KleinPipeline` and `Flux2KleinKVPipeline`."""

    def call(self, job: Job) -> tuple[Any, Mapping[str, Any]]:
        """See `Denoising`. Distilled models take no guidance, the base models do."""
        pipe, arguments = super().call(job)
        if not isinstance(pipe, Flux2KleinPipeline):
            return pipe, arguments
        guidance = 1.0 if pipe.config.is_distilled else job.guidance
        if guidance > 1:
            # The pipeline would encode it by itself, in every edit, by the layers of the published weights.
            (nothing,) = self.embeddings("")
            arguments = {**arguments, "negative_prompt_embeds": nothing}
        return pipe, {**arguments, "guidance_scale": guidance}


def load(weights: Weights, folder: Path | None, gpu_type: str, plan: Plan, on_loaded: OnLoaded) -> KleinPipeline:
    """Load and place. Raises `errors.ModelUnavailableError` and `errors.OutOfMemoryError`."""
    layers = weights.text_layers or TEXT_LAYERS
    special = {"text_encoder": loading.without_unread_layers(max(layers))}
    kinds = (Flux2KleinPipeline, Flux2KleinKVPipeline)
    applied = loading.pipeline(weights, folder, kinds, gpu_type, plan, on_loaded, special)
    if isinstance(applied.pipe, Flux2KleinKVPipeline) and not weights.caches_references:
        log.warning(
            "%s keeps keys and values of its references: its catalog entry lacks caches_references", weights.name
        )
    return KleinPipeline(applied, plan, layers)
