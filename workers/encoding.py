"""Encodes prompts that GPU workers ask for: takes what waits, runs the text encoder, stores what it makes, answers."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from storage import garbage
from storage.contracts import edits, errors
from storage.ledger import call, encodings
from workers import attempts
from workers.attempts import EXIT_GPU_FAULT, EXIT_HANGING
from workers.pipelines import base
from workers.serving import Serving

log = logging.getLogger(__name__)

UPLOADS = 4
"""Encodings on their way to the object store, while the next is computed."""

CONTENT_TYPE = "application/octet-stream"


class ObjectStore(Protocol):
    """Where encoded prompts pass through."""

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store. Raises `errors.ObjectsUnavailableError`."""
        ...


class Encoding(Serving):
    """A worker of text encoders. What it takes it answers; should it die instead, the GPU worker asks again.

    A text encoder that takes longer than `stall_limit_s` for one edit's prompts hangs, or longer than `load_limit_s` to load
    (`loading_s` tells how long it has been), and the process is ended; so it is after a fault of the GPU. `pipeline` loads a
    model's text encoder, `relieve` makes one need less memory and says whether that was possible; `encoded` is told of each edit
    whose prompts were encoded, or why they were not.
    """

    def __init__(
        self,
        *,
        region: str,
        models: Sequence[str],
        ledger: call.Ledger,
        objects: ObjectStore,
        pipeline: Callable[[str], base.Pipeline],
        stall_limit_s: float,
        load_limit_s: float = float("inf"),
        loading_s: Callable[[], float] = lambda: 0.0,
        relieve: Callable[[str], bool] = lambda model: False,
        encoded: Callable[[str, str, float], None] = lambda model, outcome, seconds: None,
        end_process: Callable[[int], object] = attempts.end_process,
    ) -> None:
        super().__init__()
        self._region = region
        self._models = list(models)
        self._ledger = ledger
        self._objects = objects
        self._pipeline = pipeline
        self._stall_limit_s, self._load_limit_s = stall_limit_s, load_limit_s
        self._loading_s = loading_s
        self._relieve = relieve
        self._encoded = encoded
        self._end_process = end_process
        self._device = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._uploaders = ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload")
        self._room = threading.BoundedSemaphore(UPLOADS)
        self._since: float | None = None

    def call_on_device_thread(self, function: Callable[[], object]) -> None:
        """Run something where text encoders run, and wait for it."""
        self._device.submit(function).result()

    @property
    def is_busy(self) -> bool:
        """Whether a prompt is being encoded."""
        return self._since is not None

    def check_stall(self) -> None:
        """End the process if a text encoder hangs: a thread cannot be ended."""
        since = self._since
        is_stalled = since is not None and time.monotonic() - since > self._stall_limit_s
        if is_stalled or self._loading_s() > self._load_limit_s:
            log.error("a text encoder hangs; ending this process")
            self._end_process(EXIT_HANGING)

    def hand_back(self) -> None:
        """Nothing is to be done: what was taken and is not answered is asked for again."""

    def close(self) -> None:
        """Finish what was taken, then end the threads."""
        self._wait_until_drained()
        self._device.shutdown(wait=True)
        self._uploaders.shutdown(wait=True)

    def _serve_next(self, *, has_ticket: bool) -> bool:
        self._room.acquire()
        is_uploading = False
        try:
            wanted = self._ledger.run(encodings.take(self._region, self._models))
            if wanted is None:
                return False
            # The model served last goes last.
            self._models.remove(wanted.model)
            self._models.append(wanted.model)
            began = time.monotonic()
            texts = self._device.submit(self._encode, wanted, began).result()
            if texts is not None:
                # Before anything is there, or a death in between would leave it for ever.
                self._ledger.run(encodings.keep(wanted))
                is_uploading = True
                self._uploaders.submit(self._store, wanted, texts, began)
        except errors.StoreUnavailableError as exc:
            log.warning("nothing taken: %s", exc)
            return False
        finally:
            if not is_uploading:
                self._room.release()
        return True

    def _encode(self, wanted: encodings.Wanted, began: float) -> list[bytes] | None:
        """What becomes of an edit's prompts, or None after it was answered why not."""
        if wanted.edit is None:
            self._refuse(wanted, "unreadable", began)
            return None
        try:
            return self._texts(wanted.model, wanted.edit)
        except errors.GpuFaultError as exc:
            log.exception("the GPU failed; ending this process")
            try:
                self._refuse(wanted, exc.code, began)
            finally:
                self._end_process(EXIT_GPU_FAULT)
        except errors.DarkroomError as exc:
            self._refuse(wanted, exc.code, began)
        except Exception:
            log.exception("%s: its prompts cannot be encoded", wanted.id)
            self._refuse(wanted, "internal", began)
        return None

    def _texts(self, model: str, edit: edits.Edit) -> list[bytes]:
        while True:
            pipeline = self._pipeline(model)
            self._since = time.monotonic()
            try:
                return [pipeline.text(prompt) for prompt in edit.prompts]
            except errors.OutOfMemoryError as exc:
                exhausted = exc
            finally:
                self._since = None
            # They hold the text encoder's parts, which are to go.
            garbage.drop_frames(exhausted)
            if not self._relieve(model):
                raise exhausted

    def _store(self, wanted: encodings.Wanted, texts: Sequence[bytes], began: float) -> None:
        try:
            for number, text in enumerate(texts):
                self._objects.put(encodings.key_of(wanted.prefix, number), text, CONTENT_TYPE)
            self._ledger.run(encodings.answer(wanted))
            self._encoded(wanted.model, "succeeded", time.monotonic() - began)
        except errors.TransientError as exc:
            self._encoded(wanted.model, exc.code, time.monotonic() - began)
            log.warning("%s: its encoded prompts were not stored; they are asked for again: %s", wanted.id, exc)
        finally:
            self._room.release()

    def _refuse(self, wanted: encodings.Wanted, why_not: str, began: float) -> None:
        log.warning("%s: its prompts are not encoded: %s", wanted.id, why_not)
        self._encoded(wanted.model, why_not, time.monotonic() - began)
        try:
            self._ledger.run(encodings.answer(wanted, why_not=why_not))
        except errors.StoreUnavailableError as exc:
            log.warning("%s: the GPU worker is not told: %s", wanted.id, exc)
