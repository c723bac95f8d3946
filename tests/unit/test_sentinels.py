"""Addresses that name Sentinels, and the broker that is reached by them."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.transport import redis as kombu_redis
from pydantic import SecretStr, ValidationError

from storage import broker, queues
from storage.sentinels import sentinels_of
from storage.settings import StoreSettings


def test_an_address_of_a_server_names_no_sentinels() -> None:
    assert sentinels_of("redis://:secret@here:6379/0") is None
    assert sentinels_of("rediss://here") is None


def test_all_of_an_address_is_heeded() -> None:
    found = sentinels_of("rediss+sentinel://us%40er:p%2Fw@one:1,two,[::1]:3/main/5?sentinel_password=s3")
    assert found is not None
    assert found.addresses == (("one", 1), ("two", 26379), ("::1", 3))
    assert (found.primary, found.has_tls) == ("main", True)
    assert found.of_servers == {"db": 5, "username": "us@er", "password": "p/w"}
    assert found.of_sentinels == {"password": "s3", "ssl": True}


@pytest.mark.parametrize(
    "wrong",
    ["redis+sentinel://one:1", "redis+sentinel:///main", "redis+sentinel://one:x/main", "redis+sentinel://one/main/x"],
)
def test_an_address_that_lacks_something_stops_the_start(wrong: str) -> None:
    with pytest.raises(ValidationError, match="REDIS_URL"):
        StoreSettings(REDIS_URL=SecretStr(wrong))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://here:6379/0", "redis://:a%2Fb%23c%3A@here:6379/0"),
        ("rediss://user:old@here:6379/0", "rediss://user:a%2Fb%23c%3A@here:6379/0"),
        ("redis+sentinel://one:1,two:2/main", "redis+sentinel://:a%2Fb%23c%3A@one:1,two:2/main"),
    ],
)
def test_a_password_of_any_characters_is_given_apart(url: str, address: str) -> None:
    settings = StoreSettings(REDIS_URL=SecretStr(url), REDIS_PASSWORD=SecretStr("a/b#c:"))
    assert settings.redis_address == address
    app = queues.celery_app(settings, ["q"])
    assert app.connection_for_read().password == "a/b#c:"


def test_a_copy_with_another_address_has_that() -> None:
    settings = StoreSettings(REDIS_URL=SecretStr("redis://here:6379/0"))
    assert settings.redis_address.endswith("/0")
    copy = settings.model_copy(update={"redis_url": SecretStr("redis+sentinel://one:1/main/1")})
    assert copy.redis_address.endswith("/1")
    assert copy.sentinels is not None


def test_a_password_that_breaks_the_address_stops_the_start_and_is_not_told() -> None:
    with pytest.raises(ValidationError, match="REDIS_PASSWORD") as caught:
        StoreSettings(REDIS_URL=SecretStr("redis://:q8Jz/Xk2@here:6379/0"))
    assert "q8Jz" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "transport"),
    [("redis://:p@one:1/0", broker.Transport), ("redis+sentinel://:p@one:1,two:2/main/0", broker.SentinelTransport)],
)
def test_the_broker_is_reached_the_same_way(url: str, transport: type) -> None:
    app = queues.celery_app(StoreSettings(REDIS_URL=SecretStr(url)), ["q"])
    connection = app.connection_for_read()
    assert connection.get_transport_cls() is transport
    assert connection.password == "p"
    assert ("master_name" in connection.transport_options) == (transport is broker.SentinelTransport)


def test_an_acknowledgement_that_fails_leaves_room_for_the_next_ticket(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: Any, delivery_tag: str) -> Any:
        raise ConnectionError("gone")

    monkeypatch.setattr(kombu_redis.QoS, "_remove_from_indices", unreachable)
    channel = SimpleNamespace(unacked_restore_limit=None, do_restore=False, _tag=itertools.count())
    window = broker.Transport.Channel.QoS(channel, prefetch_count=1)
    # What QoS.append does, without a server.
    window._delivered["tag"] = "ticket"
    assert not window.can_consume()
    with pytest.raises(ConnectionError):
        window.ack("tag")
    window._flush()
    assert window.can_consume()
