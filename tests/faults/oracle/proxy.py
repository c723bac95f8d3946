"""A TCP proxy that can be told to misbehave."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from typing import Any


class Proxy:
    """Forwards one port to another on loopback, from a thread of its own."""

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._live: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._answering = asyncio.Event()
        self._answering.set()
        self._stranded: list[asyncio.Event] = []
        self._refusing = False
        self._delay_s = 0.0
        self._swallow = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.port: int = self._call(self._listen())

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Reset every connection."""
        self._call(self._reset_all())

    def freeze(self, frozen: bool) -> None:
        """Connections stay and nothing flows: what a dead peer behind a firewall looks like."""
        self._loop.call_soon_threadsafe(lambda: self._flowing.clear() if frozen else self._flowing.set())

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Frozen while the block runs."""
        self.freeze(True)
        try:
            yield
        finally:
            self.freeze(False)

    def strand(self) -> None:
        """What is connected now never hears anything again; new connections work. A peer behind a forgetful firewall."""

        def swap() -> None:
            self._flowing.clear()
            self._stranded.append(self._flowing)
            self._flowing = asyncio.Event()
            self._flowing.set()

        self._loop.call_soon_threadsafe(swap)

    def hold_answers(self, held: bool) -> None:
        """What is sent arrives, and answers wait."""
        self._loop.call_soon_threadsafe(lambda: self._answering.clear() if held else self._answering.set())

    def refuse(self, refusing: bool) -> None:
        """Reset new connections."""
        self._refusing = refusing

    def delay(self, seconds: float) -> None:
        """Let answers take longer."""
        self._delay_s = seconds

    def swallow_replies(self, count: int) -> None:
        """Lose this many answers together with their connections: the server did it, the client never learns."""
        self._swallow = count

    def close(self) -> None:
        """End."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for stranded in (*self._stranded, self._flowing, self._answering):
            stranded.set()
        # Somebody may have been accepted just now: again until nobody is left.
        while pumping := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
            await self._reset_all()
            await asyncio.wait(pumping, timeout=0.1)

    async def _reset_all(self) -> None:
        for writer in tuple(self._live):
            _reset(writer)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _reset(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            _reset(writer)
            return
        self._live |= {writer, up_writer}
        flowing = self._flowing
        try:
            await asyncio.gather(
                self._pump(reader, up_writer, flowing, answers=False),
                self._pump(up_reader, writer, flowing, answers=True),
            )
        finally:
            self._live -= {writer, up_writer}
            _reset(writer)
            _reset(up_writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event, *, answers: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                await flowing.wait()
                if answers:
                    await self._answering.wait()
                if answers and self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if answers and self._swallow > 0:
                    self._swallow -= 1
                    break
                writer.write(chunk)
                await writer.drain()
        _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
