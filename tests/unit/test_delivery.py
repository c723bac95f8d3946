"""A caller's slow bucket takes a bounded share of the worker."""

import threading

import pytest

from storage.outside import Answer
from tests.conftest import eventually
from workers import delivery


def test_of_one_tenant_only_so_many_are_under_way_and_another_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def exchange(method: str, url: str, **_: object) -> Answer:
        if "slow" in url:
            gate.wait(10)
        return Answer(status=200, location=None, body=b"")

    bucket = delivery.Delivery(limit_s=10)
    monkeypatch.setattr(bucket._outside, "exchange", exchange)
    told: list[bool] = []

    def deliver() -> None:
        told.append(bucket.deliver("alice", "http://slow/", b"x", "image/png"))

    threads = [threading.Thread(target=deliver) for _ in range(delivery.OF_A_TENANT + 3)]
    for thread in threads:
        thread.start()
    assert eventually(lambda: told == [False] * 3)
    assert bucket.deliver("bob", "http://quick/", b"x", "image/png")
    gate.set()
    for thread in threads:
        thread.join()
    assert told.count(True) == delivery.OF_A_TENANT
    assert bucket.deliver("alice", "http://slow/", b"x", "image/png"), "there is room again"
    bucket.close()
