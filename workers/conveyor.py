"""Overlaps the phases of successive generations, so that the pipeline is never idle while work waits.

One thread claims, a few prepare, one runs the pipeline, two encode, upload and publish. The next generation is claimed only
when the running edit is nearly done: earlier would keep it from a GPU that is idle now. An input that takes long to arrive is
not waited for: another generation is claimed meanwhile.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from storage.contracts import errors
from workers.editing import Edited, Editing, Prepared, Stored
from workers.leases import Keeper, Lease

log = logging.getLogger(__name__)

T = TypeVar("T")

IN_FLIGHT = 6
"""Generations held at once, preparing, running and waiting for an upload together. Then nothing new is claimed."""

DELIVERIES = 32
"""Results on their way to their callers' own buckets, off the belt: a slow bucket holds up other buckets at the worst."""

PATIENCE_S = 1.0
"""How long an input may take to arrive before the next generation is claimed beside it."""

EXIT_GPU_FAULT = 71


class Running:
    """How far an edit is: preparing, then so many seconds from its end."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._began: float | None = None
        self._remaining_s: float | None = None
        self._prepared = False
        self._changed = threading.Condition()

    def prepared(self) -> None:
        """It waits for the pipeline."""
        with self._changed:
            self._prepared = True
            self._changed.notify_all()

    def begin(self) -> None:
        """The pipeline starts on it."""
        self._began = time.monotonic()

    def advance(self, step: int) -> None:
        """`step` steps are done."""
        elapsed = time.monotonic() - (self._began or time.monotonic())
        with self._changed:
            self._remaining_s = elapsed / step * (self._steps - step)
            self._changed.notify_all()

    def end(self) -> None:
        """It is over, one way or the other."""
        with self._changed:
            self._prepared, self._remaining_s = True, 0
            self._changed.notify_all()

    def wait_until_within(self, seconds: float, *, patience_s: float) -> None:
        """Block until no more than this remains. One whose inputs take longer than `patience_s` is not waited for."""
        with self._changed:
            if self._changed.wait_for(lambda: self._prepared, patience_s):
                self._changed.wait_for(lambda: self._remaining_s is not None and self._remaining_s <= seconds)


class Conveyor:
    """A GPU worker's threads."""

    def __init__(
        self,
        editing: Editing,
        keeper: Keeper,
        *,
        look_ahead_s: float,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._editing = editing
        self._keeper = keeper
        self._look_ahead_s = look_ahead_s
        self._end_process = end_process
        self._preparers = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="prepare")
        self._pipeline = ThreadPoolExecutor(1, thread_name_prefix="pipeline")
        self._finishers = ThreadPoolExecutor(2, thread_name_prefix="finish")
        self._deliverers = ThreadPoolExecutor(DELIVERIES, thread_name_prefix="deliver")
        self._serving = threading.Lock()
        self._free = threading.BoundedSemaphore(IN_FLIGHT)
        self._draining = threading.Event()

    def call_on_pipeline_thread(self, function: Callable[[], object]) -> None:
        """Run something where the pipeline runs, and wait for it: loading a model, for one."""
        self._pipeline.submit(function).result()

    def serve(self, *, wait: bool = True) -> None:
        """Serve until nothing waits, or until told to drain. Returns with the last edits still on the belt.

        One thread serves at a time; without `wait`, nothing is done while another does.
        """
        if not self._serving.acquire(blocking=wait):
            return
        try:
            while self._put_next_on_belt(has_ticket=wait):
                pass
        finally:
            self._serving.release()

    def look_by_itself(self, every_s: float) -> None:
        """Serve now and then without a ticket, until told to drain: a worker whose tickets go astray is slow, not deaf."""
        while not self._draining.wait(every_s):
            self.serve(wait=False)

    def drain(self) -> None:
        """Claim nothing new."""
        self._draining.set()

    def close(self) -> None:
        """Finish what is on the belt, then end the threads."""
        self.drain()
        # Whoever is serving claims nothing more, but may be about to put what it has claimed on the belt.
        with self._serving:
            pass
        self._preparers.shutdown(wait=True)
        self._pipeline.shutdown(wait=True)
        self._finishers.shutdown(wait=True)
        self._deliverers.shutdown(wait=True)

    def _claim(self, *, has_ticket: bool) -> Lease | None:
        try:
            return self._editing.claim(has_ticket=has_ticket)
        except errors.StoreUnavailableError as exc:
            log.warning("nothing claimed: %s", exc)
        except Exception:
            # A record this version cannot read, say: its lease runs out, and the worker goes on.
            log.exception("a claim failed")
        return None

    def _put_next_on_belt(self, *, has_ticket: bool) -> bool:
        """Claim the next generation. Returns when the one after it should be claimed; False when nothing waits."""
        self._free.acquire()
        lease = None if self._draining.is_set() else self._claim(has_ticket=has_ticket)
        if lease is None:
            self._free.release()
            return False
        running = Running(lease.claim.edit.steps)
        # The model may be loading while the input is on its way.
        self._pipeline.submit(self._editing.warm, lease)
        self._preparers.submit(self._prepare, lease, running)
        running.wait_until_within(self._look_ahead_s, patience_s=PATIENCE_S)
        return True

    def _prepare(self, lease: Lease, running: Running) -> None:
        prepared = self._attempt(lease, lambda: self._editing.prepare(lease))
        if prepared is None:
            running.end()
        else:
            self._pipeline.submit(self._edit, prepared, running)
            running.prepared()

    def _edit(self, prepared: Prepared, running: Running) -> None:
        running.begin()
        try:
            edited = self._attempt(prepared.lease, lambda: self._editing.edit(prepared, running.advance))
        finally:
            running.end()
        if edited is not None:
            self._finishers.submit(self._finish, edited)

    def _finish(self, edited: Edited) -> None:
        stored = self._attempt(edited.prepared.lease, lambda: self._editing.store(edited))
        if stored is None:
            return
        if stored.is_to_be_delivered:
            self._free.release()
            self._deliverers.submit(self._publish, stored, on_belt=False)
        else:
            self._publish(stored, on_belt=True)

    def _publish(self, stored: Stored, *, on_belt: bool) -> None:
        if self._attempt(stored.lease, lambda: self._editing.publish(stored), on_belt=on_belt) is not None:
            self._let_go(stored.lease, on_belt=on_belt)

    def _attempt(self, lease: Lease, phase: Callable[[], T], *, on_belt: bool = True) -> T | None:
        """Run a phase; when it fails, record that and let the generation go."""
        try:
            return phase()
        except errors.GpuFaultError as exc:
            log.exception("the GPU failed; ending this process")
            self._editing.give_up(lease, exc)
            self._keeper.drop(lease)
            self._keeper.hand_back()
            self._end_process(EXIT_GPU_FAULT)
        except errors.DarkroomError as exc:
            self._editing.give_up(lease, exc)
        except Exception:
            log.exception("%s failed", lease.claim.id)
            self._editing.give_up(lease, errors.InternalError("The edit failed on our side"))
        self._let_go(lease, on_belt=on_belt)
        return None

    def _let_go(self, lease: Lease, *, on_belt: bool) -> None:
        self._keeper.drop(lease)
        if on_belt:
            self._free.release()
