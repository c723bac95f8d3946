"""Queue names and the Celery application that carries tickets.

A ticket wakes a worker; it names no generation. So losing or doubling one changes nothing, and everything Celery could
remember is switched off.
"""

import ssl
from collections.abc import Iterable
from typing import Any

import celery
import kombu
from kombu.exceptions import KombuError

from storage import broker, keys
from storage.contracts import errors, queue_names
from storage.settings import StoreSettings

TASK = "darkroom.serve"
"""The one task: serve until nothing waits."""


def queues_of_worker(models: Iterable[str], gpu_type: str, region: str) -> tuple[str, ...]:
    """What a worker serves, from what only its like may to what anyone may."""
    models = tuple(models)
    places = ((gpu_type, region), (queue_names.ANY_GPU, region), (gpu_type, None), (queue_names.ANY_GPU, None))
    return tuple(queue_names.of(model, *place) for place in places for model in models)


def celery_app(settings: StoreSettings, queues: Iterable[str]) -> celery.Celery:
    """An application that can send tickets to, or consume them from, these queues."""
    sentinels = settings.sentinels
    broker_url = sentinels.broker_url if sentinels else settings.redis_address
    app = celery.Celery("darkroom", broker=broker_url, set_as_current=False)
    app.conf.update(
        broker_transport=f"{broker.__name__}:{'SentinelTransport' if sentinels else 'Transport'}",
        broker_use_ssl=_tls(settings),
        # A broker that accepts pickle lets everybody who can write to it run code in the worker.
        task_serializer="json",
        accept_content=["json"],
        # The ledger remembers: a result backend and events would only turn 10 Redis commands a ticket into 24.
        task_ignore_result=True,
        result_backend=None,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        # Acknowledged when taken: an acknowledgement at the end that fails in a stall of Redis leaves the prefetch window full
        # for ever, and the worker deaf. What a dead worker held comes back by its lease, not by the broker.
        task_acks_late=False,
        # A busy worker holds one more ticket at the most; others look by themselves, and the ticket is replaced. (With
        # `worker_disable_prefetch` it would hold none, but look for the next one up to a second late.)
        worker_prefetch_multiplier=1,
        # The housekeeping worker replaces what could not be sent; a request must not wait for a retry ladder.
        task_publish_retry=False,
        broker_connection_retry_on_startup=True,
        # A store that refuses writes (no replica, no memory, no disk, no primary any more) will take them again. Without this its
        # refusal ends the worker, whose models would have to be loaded anew.
        broker_channel_error_retry=True,
        broker_connection_max_retries=None,
        task_create_missing_queues=False,
        task_queues=[kombu.Queue(name, routing_key=name) for name in queues],
        task_default_queue=next(iter(queues), "edits"),
        worker_hijack_root_logger=False,
        worker_proc_alive_timeout=60,
        broker_transport_options={
            "visibility_timeout": 3600,
            # Without a socket time-out a worker on a connection that died silently never consumes again.
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "global_keyprefix": keys.BROKER,
            **({"master_name": sentinels.primary, "sentinel_kwargs": _of_sentinels(settings)} if sentinels else {}),
        },
    )
    return app


def _of_sentinels(settings: StoreSettings) -> dict[str, Any]:
    options = settings.sentinels.of_sentinels if settings.sentinels else {}
    return {"socket_timeout": 2, "socket_connect_timeout": 2, **(_tls(settings) or {}), **options}


def _tls(settings: StoreSettings) -> dict[str, Any] | None:
    if not settings.has_redis_tls:
        return None
    known = {} if settings.store_authority is None else {"ssl_ca_certs": str(settings.store_authority)}
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, **known}


def send_ticket(app: celery.Celery, queue: str) -> None:
    """Wake a worker of this queue. Blocks for a few seconds at worst. Raises `errors.StoreUnavailableError`."""
    try:
        app.send_task(TASK, queue=queue, ignore_result=True)
    except (KombuError, OSError) as exc:
        raise errors.StoreUnavailableError(f"The ticket could not be sent ({type(exc).__name__})") from exc
