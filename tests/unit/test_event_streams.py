"""Every event stream is framed and kept alive in the same way, whichever dialect it speaks."""

import asyncio
from collections.abc import AsyncIterator

import anyio

from api.http import streams


async def _frames(stopping: anyio.Event) -> AsyncIterator[bytes]:
    yield streams.frame("{}", name="one", id_="1-0")
    await stopping.wait()
    yield streams.frame("bye")


def test_lines_end_in_lf_and_the_events_name_comes_before_its_data() -> None:
    frame = streams.frame('{"a":1}', name="one", id_="1-0")
    assert b"\r" not in frame
    assert frame.index(b"event: one") < frame.index(b'data: {"a":1}')
    assert streams.comment("here") == b": here\n\n"


async def test_a_stream_is_kept_alive_limits_slow_readers_and_says_goodbye_when_the_process_stops() -> None:
    response = streams.response(_frames, headers={"x-request-id": "7"})
    assert response.ping_interval == streams.KEEP_ALIVE_S
    assert response.ping_message_factory is not None
    assert response.ping_message_factory().encode() == b": keep-alive\n\n"
    assert response.send_timeout == streams.SLOW_READER_S
    assert (response.headers["x-request-id"], response.headers["cache-control"]) == ("7", "no-cache")
    iterator = response.body_iterator
    async with asyncio.timeout(5):
        assert b"event: one" in await anext(iterator)  # type: ignore[arg-type, operator]
        response._shutdown_event.set()
        assert b"bye" in await anext(iterator)  # type: ignore[arg-type, operator]
