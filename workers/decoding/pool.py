"""A worker's decoding children: a few, started when they are needed, and again when they have died or grown."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from storage.contracts import edits, errors
from storage.contracts.geometry import Size
from workers.decoding import frames, pixels

log = logging.getLogger(__name__)

START_LIMIT_S = 60.0

LARGEST_CHILD_MB = 256
"""A child that needed more than this for a picture is replaced: its allocator would keep the memory."""

WALL_PER_PROCESSOR_SECOND = 3
"""On a busy machine a second of computing takes longer than a second."""

_NONSENSE = "A decoder's answer makes no sense"
_MOST_PIXELS = pixels.WORKING_SIDE**2
_CHANNELS = {"RGB": 3, "L": 1}


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A picture ready for a model, and the size in pixels it came in, upright."""

    image: Image.Image
    original: Size


class Decoders:
    """Decodes pictures in at most `count` children. Safe to use from several threads."""

    def __init__(self, *, count: int = 2, memory_mb: int = 2048, limit_s: float = 10) -> None:
        """`memory_mb` (MiB of address space) and `limit_s` (seconds of processor time) are for one picture."""
        self._memory_mb, self._limit_s = memory_mb, limit_s
        self._free = threading.BoundedSemaphore(count)
        self._lock = threading.Lock()
        self._idle: list[_Child] = [self._started()]

    def decode(self, data: bytes, field: str) -> Decoded:
        """See `pixels.decode`. Raises `errors.InvalidInputError` naming `field`, also where a limit is met."""
        return self._asked(data, field, {"field": field})

    def decode_mask(self, data: bytes, field: str, channel: edits.MaskChannel) -> Decoded:
        """See `pixels.decode_mask`. Raises as `decode`."""
        return self._asked(data, field, {"field": field, "mask_channel": channel})

    def close(self) -> None:
        """End the children."""
        with self._lock:
            for child in self._idle:
                child.close()
            self._idle.clear()

    def _asked(self, data: bytes, field: str, fields: dict[str, Any]) -> Decoded:
        with self._borrowed() as child:
            try:
                answer, body = child.ask(fields, data, within_s=WALL_PER_PROCESSOR_SECOND * self._limit_s)
            except frames.ClosedError as exc:
                status = child.ended()
                log.warning("a picture's decoder ended (%s): %s", status, exc)
                if status == -signal.SIGKILL and not child.is_overdue:
                    # By the system, which has no memory left, and takes these first: the picture may be a good one.
                    raise errors.OutOfMemoryError("The worker's machine has no room to decode a picture") from None
                raise self._too_much(field) from None
        if answer.get("exhausted"):
            raise self._too_much(field)
        if "refused" in answer:
            is_large = answer.get("code") == errors.PayloadTooLargeError.code
            raise (errors.PayloadTooLargeError if is_large else errors.InvalidInputError)(
                str(answer["refused"]), field=field
            )
        return _decoded(answer, body)

    def _too_much(self, field: str) -> errors.InvalidInputError:
        limits = f"{self._memory_mb} MiB and {self._limit_s:g} seconds"
        return errors.InvalidInputError(f"{field} could not be decoded within {limits}", field=field)

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator["_Child"]:
        with self._free:
            with self._lock:
                alive = [child for child in self._idle if child.is_alive]
                for dead in set(self._idle) - set(alive):
                    dead.close()
                self._idle = alive
                child = self._idle.pop() if self._idle else None
            child = child or self._started()
            try:
                yield child
            finally:
                if child.is_reusable:
                    with self._lock:
                        self._idle.append(child)
                else:
                    child.close()

    def _started(self) -> "_Child":
        try:
            return _Child(self._memory_mb, self._limit_s)
        except OSError as exc:
            raise errors.OutOfMemoryError("The worker's machine has no room to decode a picture") from exc


class _Child:
    """One process."""

    def __init__(self, memory_mb: int, limit_s: float) -> None:
        # Nothing of the worker's environment but where its modules lie: it holds keys.
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": os.environ.get("PATH", "")}
        command = [sys.executable, "-m", "workers.decoding.child", str(memory_mb), str(limit_s)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
        )
        self._pipes = [pipe for pipe in (self._process.stdin, self._process.stdout) if pipe is not None]
        self._is_ready = False
        self.is_reusable = True
        self.is_overdue = False
        """Whether it was ended here, for taking too long."""

    @property
    def is_alive(self) -> bool:
        """Whether it may be asked: the system ends these first when it has no memory."""
        return self._process.poll() is None

    def ask(self, fields: dict[str, Any], data: bytes, *, within_s: float) -> tuple[dict[str, Any], bytes]:
        """One picture. Raises `frames.ClosedError`, after which the child is gone, and `errors.InternalError` if none starts."""
        requests, answers = (pipe.fileno() for pipe in self._pipes)
        reusable, self.is_reusable = self.is_reusable, False
        if not self._is_ready:
            with self._ended_after(START_LIMIT_S):
                try:
                    frames.receive(answers, most=0)
                except frames.ClosedError as exc:
                    raise errors.InternalError("No process for decoding could be started") from exc
            self._is_ready = True
        with self._ended_after(within_s):
            try:
                frames.send(requests, fields, data)
            except OSError as exc:
                raise frames.ClosedError("it is gone") from exc
            answer, body = frames.receive(answers, most=_MOST_PIXELS * 3)
        self.is_reusable = reusable and int(answer.get("peak_mb", 0)) <= LARGEST_CHILD_MB
        return answer, body

    def ended(self) -> int:
        """How it ended by itself, as its exit status, negative for a signal; it is made to where it did not."""
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.is_overdue = True
            return self.end()

    def end(self) -> int:
        """End it at once. Returns its exit status, negative for a signal."""
        self._process.kill()
        return self._process.wait()

    def close(self) -> None:
        """End it, and close the pipes."""
        self.end()
        for pipe in self._pipes:
            pipe.close()

    def _overdue(self) -> None:
        self.is_overdue = True
        self._process.kill()

    @contextlib.contextmanager
    def _ended_after(self, seconds: float) -> Iterator[None]:
        """While it runs: end the process when this takes longer, so that reading from it ends."""
        timer = threading.Timer(seconds, self._overdue)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _decoded(answer: dict[str, Any], body: bytes) -> Decoded:
    """An answer as pictures, once what it says of itself fits. Raises `errors.InternalError`."""
    try:
        mode, (width, height), original = answer["mode"], answer["size"], answer["original"]
        is_whole = width * height <= _MOST_PIXELS and len(body) == width * height * _CHANNELS[mode]
        if is_whole:
            image = Image.frombytes(mode, (width, height), body)
            return Decoded(image=image, original=Size(width=original[0], height=original[1]))
    except (KeyError, TypeError, ValueError) as exc:
        raise errors.InternalError(_NONSENSE) from exc
    raise errors.InternalError(_NONSENSE)
