"""What is worth asking again is asked again, and the log says what is waited for."""

import logging

import httpx
import pytest

import darkroom

BUSY = {"error": {"code": "store_unavailable", "message": "the store does not answer"}}


class Service:
    """Answers one request after the other, the last answer for ever."""

    def __init__(self, *answers: httpx.Response) -> None:
        self._answers, self.asked = answers, 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return self._answers[min(self.asked, len(self._answers)) - 1]


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr("darkroom.synchronous.time.sleep", pauses.append)
    return pauses


def _client(monkeypatch: pytest.MonkeyPatch, service: Service) -> darkroom.Client:
    client = darkroom.Client("http://127.0.0.1:1", "key")
    monkeypatch.setattr(client, "_http", httpx.Client(base_url=client.url, transport=httpx.MockTransport(service)))
    return client


def test_a_busy_service_is_asked_again_and_long_pauses_are_told(
    monkeypatch: pytest.MonkeyPatch, paused: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    busy = httpx.Response(503, json=BUSY)
    service = Service(
        busy,
        busy,
        httpx.Response(503, json=BUSY, headers={"Retry-After": "7"}),
        httpx.Response(200, json={"data": []}),
    )
    with _client(monkeypatch, service) as client, caplog.at_level(logging.WARNING, "darkroom"):
        client.models()
    assert service.asked == 4
    assert paused == [0.2, 0.4, 7.0]
    assert [record.getMessage() for record in caplog.records] == [
        "http://127.0.0.1:1: the store does not answer; asking again in 7 s (3 of 7)"
    ]


def test_one_that_stays_busy_is_given_up(monkeypatch: pytest.MonkeyPatch, paused: list[float]) -> None:
    service = Service(httpx.Response(503, json=BUSY))
    with _client(monkeypatch, service) as client, pytest.raises(darkroom.ApiError, match="does not answer"):
        client.models()
    assert (service.asked, len(paused)) == (8, 7)


def test_what_cannot_be_answered_otherwise_is_asked_once(monkeypatch: pytest.MonkeyPatch, paused: list[float]) -> None:
    service = Service(httpx.Response(403, json={"error": {"code": "forbidden", "message": "no"}}))
    with _client(monkeypatch, service) as client, pytest.raises(darkroom.RefusedError):
        client.models()
    assert (service.asked, paused) == (1, [])
