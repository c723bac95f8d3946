"""Celery's way to Redis, mended in one place: an acknowledgement that fails counts as one.

Otherwise the message that could not be acknowledged stays in the prefetch window, which is then full for ever, and the worker
receives no more tickets. A ticket that is delivered again does no harm.
"""

from typing import Any

from kombu.transport import redis, virtual


class _Acknowledging(redis.QoS):  # type: ignore[misc]
    def ack(self, delivery_tag: Any) -> None:
        try:
            super().ack(delivery_tag)
        except Exception:
            virtual.QoS.ack(self, delivery_tag)
            raise


class _Channel(redis.Channel):  # type: ignore[misc]
    QoS = _Acknowledging


class _SentinelChannel(redis.SentinelChannel):  # type: ignore[misc]
    QoS = _Acknowledging


class Transport(redis.Transport):  # type: ignore[misc]
    """To a server."""

    Channel = _Channel


class SentinelTransport(redis.SentinelTransport):  # type: ignore[misc]
    """To the primary that Sentinels know."""

    Channel = _SentinelChannel
