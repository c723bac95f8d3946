"""`python -m workers.text_encoder`: a worker that has text encoders alone, and encodes prompts for GPU workers.

Its models' transformers run elsewhere, on GPUs that their text encoders would leave too little room. A text encoder that was
loaded stays until another needs the room. Told to stop it finishes what it has taken.
"""

import contextlib
import os

from storage import connections, queues, traces
from storage.contracts import errors, queue_names
from storage.ledger.execution import RedisLedger
from storage.metrics import registry, served
from storage.objects import Objects
from workers.assignment import assigned
from workers.consuming import consume
from workers.encoding import Encoding
from workers.metrics import TextEncoderMetrics
from workers.presence import announced, every, start
from workers.residency import Residency
from workers.settings import GpuSettings
from workers.shutdown import Stopper

STALL_S = 1.0
"""How often is looked whether a text encoder hangs."""


def run_text_encoder(settings: GpuSettings) -> None:
    """Load the text encoders, then serve until told to stop. Raises `ValueError` when the settings do not fit."""
    assignment = assigned(settings, text_encoders=True)
    models = assignment.models
    app = queues.celery_app(settings, [queue_names.of_encodings(model, settings.region) for model in models])
    counted = TextEncoderMetrics(registry())
    with contextlib.ExitStack() as stack:
        stack.enter_context(traces.told(settings, "darkroom-text-encoder"))
        connection = stack.enter_context(contextlib.closing(connections.connect(settings)))
        objects = stack.enter_context(contextlib.closing(Objects(settings, observe=counted.object_store)))
        residency = Residency(
            assignment.known,
            weights_dir=settings.weights_dir,
            gpu_type=settings.gpu_type,
            load_rest_s=settings.load_rest_s,
            preloaded=frozenset(assignment.preload),
            host_gb=assignment.host_gb,
            compile_cache=assignment.compile_cache,
            encoding=lambda model: "only",
        )
        encoding = stack.enter_context(
            contextlib.closing(
                Encoding(
                    region=settings.region,
                    models=models,
                    ledger=RedisLedger(connection),
                    objects=objects,
                    pipeline=residency.pipeline,
                    stall_limit_s=settings.stall_limit_s,
                    load_limit_s=settings.load_limit_s,
                    loading_s=lambda: residency.loading_s,
                    relieve=residency.relieve,
                    encoded=counted.encoded,
                )
            )
        )
        stack.enter_context(served(counted.registry, settings))
        stack.enter_context(every(STALL_S, "looking for a stalled text encoder", encoding.check_stall))
        for model in assignment.preload:
            try:
                encoding.call_on_device_thread(lambda model=model: residency.pipeline(model))  # type: ignore[misc]
            except errors.DarkroomError as exc:
                raise ValueError(f"DARKROOM_PRELOAD: {model}: {exc}") from exc

        def facts() -> dict[str, object]:
            return {
                "role": "text_encoder",
                "gpu_type": settings.gpu_type,
                "region": settings.region,
                "memory_gb": assignment.known.gpu_types[settings.gpu_type].memory_gb,
                "models": {model: residency.state(model) for model in models},
                "busy": encoding.is_busy,
            }

        stopper = Stopper(encoding, encoding, grace_s=settings.grace_s)
        consume(app, encoding, stopper, settings.worker_name, announced(connection, settings.worker_name, facts))


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    start(GpuSettings, run_text_encoder)
