"""`python -m workers.gpu`: a worker bound to one GPU, serving tickets until told to stop.

Opens its connections, starts its threads, loads its models, and closes everything in reverse order.
"""

import contextlib
import os
import statistics
from collections.abc import Iterable

import celery

from storage import connections, provenance, queues, traces
from storage.contracts import errors, queue_names
from storage.ledger import claims
from storage.ledger.execution import RedisLedger, Replicas
from storage.metrics import Certificates, registry, served
from storage.objects import Objects
from workers.assignment import assigned
from workers.claiming import Claiming
from workers.consuming import consume
from workers.conveyor import Conveyor, Phases
from workers.decoding.pool import Decoders
from workers.delivery import Delivery
from workers.fetching import Fetcher
from workers.filters import filters_of
from workers.finishing import Finishing
from workers.leases import Keeper
from workers.metrics import WorkerMetrics
from workers.others import Others
from workers.preparing import Preparing
from workers.presence import announced, every, start
from workers.remote_encoding import RemoteEncoding
from workers.residency import Residency
from workers.retrying import Retrying
from workers.running import Running
from workers.settings import GpuSettings
from workers.shutdown import Stopper
from workers.stopping import StopListener
from workers.wishes import Wishes

COOL_S = 10.0
"""How often models are looked through for those unused too long."""

OTHERS_S = 2.0
WISHES_S = 1.0
"""How often the others are looked at, and what models are wanted."""


def run_gpu_worker(settings: GpuSettings) -> None:
    """Load the models, then serve tickets until told to stop. Raises `ValueError` when the settings do not fit."""
    assignment = assigned(settings)
    known, models, preload = assignment.known, assignment.models, assignment.preload

    def queues_of(named: Iterable[str]) -> tuple[str, ...]:
        return queues.queues_of_worker(named, settings.gpu_type, settings.region)

    claimant = claims.Claimant(worker=settings.worker_name, gpu_type=settings.gpu_type, region=settings.region)
    own_queues = queues_of(models)
    app = queues.celery_app(settings, own_queues)
    # Apart: a Celery worker consumes all queues that its application knows.
    text_encoders = queues.celery_app(settings, [queue_names.of_encodings(model, settings.region) for model in models])
    counted = WorkerMetrics(registry(), gpu_type=settings.gpu_type, region=settings.region)
    counted.registry.register(Certificates({"signing": settings.signing_certificate}))
    with contextlib.ExitStack() as stack:
        stack.enter_context(traces.told(settings, "darkroom-worker"))
        connection = stack.enter_context(contextlib.closing(connections.connect(settings)))
        beats = stack.enter_context(contextlib.closing(connections.connect(settings)))
        others = Others(RedisLedger(connection), settings.worker_name, settings.region)
        residency = Residency(
            known,
            weights_dir=settings.weights_dir,
            gpu_type=settings.gpu_type,
            keep_warm_s=settings.keep_warm_s,
            load_rest_s=settings.load_rest_s,
            preloaded=frozenset(preload),
            host_gb=assignment.host_gb,
            compile_cache=assignment.compile_cache,
            encoding=lambda model: (
                "here" if settings.text_encoding == "either" and not others.encodes(model) else settings.text_encoding
            ),
            loaded=counted.loaded,
            evicted=counted.evicted,
            exhausted=counted.exhausted,
        )
        keeper = stack.enter_context(contextlib.closing(_keeper(settings, RedisLedger(beats), residency)))
        stack.enter_context(contextlib.closing(StopListener(connection, keeper.stop)))
        fetcher = Fetcher(
            limit_s=settings.fetch_limit_s, allowed=settings.fetchable, authority=settings.store_authority
        )
        stack.callback(fetcher.close)
        decoders = stack.enter_context(contextlib.closing(_decoders(settings)))
        delivery = Delivery(limit_s=settings.fetch_limit_s, allowed=settings.fetch_allowed)
        stack.callback(delivery.close)
        filters = filters_of(
            settings.filtered_words,
            settings.image_filter,
            folder=settings.weights_dir,
            refused=settings.image_filter_labels,
            threshold=settings.image_filter_threshold,
        )
        ledger = RedisLedger(connection, Replicas.of(settings))
        objects = stack.enter_context(contextlib.closing(Objects(settings, observe=counted.object_store)))
        remote = RemoteEncoding(
            ledger=ledger,
            connection=connection,
            objects=objects,
            wake=lambda model: _wake(text_encoders, queue_names.of_encodings(model, settings.region)),
            region=settings.region,
            is_loading=others.is_loading_encoder,
            limit_s=settings.encode_limit_s,
            # An answer is waited for on a connection that gives up after its time-out.
            wait_s=settings.redis_timeout_s / 2,
        )
        phases = Phases(
            claiming=Claiming(
                claimant=claimant,
                queues=own_queues,
                ledger=ledger,
                keeper=keeper,
                closed_queues=lambda: queues_of(residency.failed()),
                warm_queues=lambda: queues_of(residency.resident()),
                warm_elsewhere=others.warm_queues,
                pass_on=lambda queue: _wake(app, queue),
                affinity_s=settings.affinity_s,
                defer_s=settings.defer_s,
            ),
            preparing=Preparing(
                known=known,
                objects=objects,
                filters=filters,
                fetch=fetcher.fetch,
                decoder=decoders,
                encode=remote.encoded,
                encodes_elsewhere=residency.encodes_elsewhere,
            ),
            running=Running(
                filters=filters,
                pipeline=lambda model, on_loaded: residency.pipeline(model, on_loaded, at_once=True),
                finish_warming=residency.finish_warming,
                relieve=residency.relieve,
                encode_here=residency.encode_here,
            ),
            finishing=Finishing(
                claimant=claimant,
                known=known,
                ledger=ledger,
                objects=objects,
                filters=filters,
                signer=provenance.signer_of(settings),
                deliver=delivery.deliver,
                finished=counted.finished,
            ),
            retrying=Retrying(
                claimant=claimant,
                ledger=ledger,
                max_attempts=settings.max_attempts,
                max_losses=settings.max_losses,
                rest_s=settings.rest_s,
                failed=counted.failed,
            ),
        )
        conveyor = stack.enter_context(
            contextlib.closing(
                Conveyor(phases, keeper, look_ahead_s=settings.look_ahead_s, would_evict=residency.would_evict)
            )
        )
        counted.watch(
            idle_s=lambda: statistics.median(conveyor.idle_ms or (0.0,)) / 1000,
            models=lambda: {model: str(residency.state(model)["state"]) for model in models},
        )
        stack.enter_context(served(counted.registry, settings))
        # Looked at before a model is loaded: its plan depends on who encodes prompts.
        with contextlib.suppress(errors.StoreUnavailableError):
            others.look()
        stack.enter_context(every(OTHERS_S, "looking at the other workers", others.look))
        for model in preload:
            try:
                conveyor.call_on_pipeline_thread(lambda model=model: residency.pipeline(model))  # type: ignore[misc]
            except errors.DarkroomError as exc:
                raise ValueError(f"DARKROOM_PRELOAD: {model}: {exc}") from exc
        stack.enter_context(
            every(COOL_S, "unloading models that nobody uses", lambda: conveyor.call_on_pipeline_thread(residency.cool))
        )
        wishes = Wishes(
            ledger=RedisLedger(connection),
            claimant=claimant,
            models=models,
            residency=residency,
            is_busy=keeper.busy,
            on_pipeline=conveyor.call_on_pipeline_thread,
        )
        stack.enter_context(every(WISHES_S, "looking for models to load ahead", wishes.look))

        def facts() -> dict[str, object]:
            states = {model: residency.state(model) for model in models}
            return {
                "role": "gpu",
                "gpu_type": settings.gpu_type,
                "region": settings.region,
                "memory_gb": known.gpu_types[settings.gpu_type].memory_gb,
                "models": states,
                "busy": keeper.busy(),
                "idle_ms": round(statistics.median(conveyor.idle_ms), 1) if conveyor.idle_ms else None,
                "left_to_others": [one for one in models if one not in residency.resident() and others.has_warm(one)],
            }

        stopper = Stopper(conveyor, keeper, grace_s=settings.grace_s)
        consume(app, conveyor, stopper, settings.worker_name, announced(connection, settings.worker_name, facts))


def _wake(app: celery.Celery, queue: str) -> None:
    with contextlib.suppress(errors.StoreUnavailableError):  # it is replaced, or asked for again
        queues.send_ticket(app, queue)


def _decoders(settings: GpuSettings) -> Decoders:
    return Decoders(count=settings.decoders, memory_mb=settings.decode_memory_mb, limit_s=settings.decode_limit_s)


def _keeper(settings: GpuSettings, ledger: RedisLedger, residency: Residency) -> Keeper:
    return Keeper(
        ledger,
        lease_s=settings.lease_s,
        beat_s=settings.beat_s,
        stall_limit_s=settings.stall_limit_s,
        load_limit_s=settings.load_limit_s,
        loading_s=lambda: residency.loading_s,
    )


if __name__ == "__main__":
    # A worker loads what the catalog names; telling the hub about it is not its business.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Freed pieces are put together again: edits of many sizes would leave memory in pieces too small for the next.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    start(GpuSettings, run_gpu_worker)
