"""Overlaps the phases of successive generations, so that the pipeline is never idle while work waits.

One thread claims (when: `lookahead`), a few prepare, one runs the pipeline (in which order: `order`), two encode, upload and
publish.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from storage.contracts import errors
from workers import attempts
from workers.attempts import EXIT_GPU_FAULT
from workers.belt import SLOW, SLOW_AFTER_S, Belt
from workers.claiming import Claiming
from workers.finishing import Finishing, Stored
from workers.leases import Keeper, Lease
from workers.lookahead import Entry, Lookahead
from workers.order import Order, WouldEvict
from workers.preparing import Prepared, Preparing
from workers.retrying import Retrying
from workers.running import Edited, Running
from workers.serving import Serving

log = logging.getLogger(__name__)

T = TypeVar("T")

IN_FLIGHT = 6
"""Generations held at once, preparing, running and waiting for an upload together. Then nothing new is claimed."""

DELIVERIES = 32
"""Results on their way to their callers' own buckets, off the belt: a slow bucket holds up other buckets at the worst."""

PATIENCE_S, IDLE_PATIENCE_S = 1.0, SLOW_AFTER_S
"""How long a busy and an idle pipeline wait for an input before the next generation is claimed beside it."""


@dataclass(frozen=True, kw_only=True)
class Phases:
    """What is done with a generation, one after the other; `retrying` when one of them fails."""

    claiming: Claiming
    preparing: Preparing
    running: Running
    finishing: Finishing
    retrying: Retrying


class Conveyor(Serving):
    """A GPU worker's threads. `serve` returns with the last edits still on the belt."""

    def __init__(
        self,
        phases: Phases,
        keeper: Keeper,
        *,
        look_ahead_s: float,
        would_evict: WouldEvict = lambda model: frozenset(),
        end_process: Callable[[int], object] = attempts.end_process,
    ) -> None:
        super().__init__()
        self._phases = phases
        self._keeper = keeper
        self._lookahead = Lookahead(
            look_ahead_s, most=IN_FLIGHT - 1, patience_s=PATIENCE_S, idle_patience_s=IDLE_PATIENCE_S
        )
        self._order: Order[Lease] = Order(would_evict)
        self._end_process = end_process
        self._preparers = ThreadPoolExecutor(IN_FLIGHT + SLOW, thread_name_prefix="prepare")
        self._pipeline = ThreadPoolExecutor(1, thread_name_prefix="pipeline")
        self._finishers = ThreadPoolExecutor(2, thread_name_prefix="finish")
        self._deliverers = ThreadPoolExecutor(DELIVERIES, thread_name_prefix="deliver")
        self._belt = Belt(IN_FLIGHT)
        self._left_to_others: frozenset[str] = frozenset()

    def call_on_pipeline_thread(self, function: Callable[[], object]) -> None:
        """Run something where the pipeline runs, and wait for it: loading a model, for one. Raises what it raises.

        Where the GPU fails, this process is ended.
        """
        try:
            self._pipeline.submit(function).result()
        except errors.GpuFaultError as exc:
            self._end_with(exc)
            raise

    @property
    def idle_ms(self) -> tuple[float, ...]:
        """How long the pipeline was idle before each of the last edits while that one had been waiting."""
        return self._lookahead.idle_ms

    def close(self) -> None:
        """Finish what is on the belt, then end the threads."""
        self._wait_until_drained()
        self._preparers.shutdown(wait=True)
        self._pipeline.shutdown(wait=True)
        self._finishers.shutdown(wait=True)
        self._deliverers.shutdown(wait=True)

    def _claim(self, *, has_ticket: bool) -> Lease | None:
        self._left_to_others = self._belt.slow_tenants()
        try:
            return self._phases.claiming.claim(has_ticket=has_ticket, slow_tenants=self._left_to_others)
        except errors.StoreUnavailableError as exc:
            log.warning("nothing claimed: %s", exc)
        except Exception:
            # A record this version cannot read, say: its lease runs out, and the worker goes on.
            log.exception("a claim failed")
        return None

    def _serve_next(self, *, has_ticket: bool) -> bool:
        """Put the next generation on the belt. Returns when the one after it should be claimed."""
        self._belt.take()
        lease = None if self._draining.is_set() else self._claim(has_ticket=has_ticket)
        if lease is None:
            self._belt.leave(None)
            # Of somebody whose inputs have arrived meanwhile more may be claimed.
            return bool(self._left_to_others - self._belt.slow_tenants())
        edit, tenant = lease.claim.edit, lease.claim.tenant
        is_slow = edit.is_fetched and self._belt.expects_slow(tenant)
        entry = self._lookahead.claimed(edit.model, edit.steps, lease.claim.waited_ms / 1000, is_slow=is_slow)
        self._belt.begin(lease, tenant)
        self._order.hold(lease, edit.model)
        # The model may be loading while the input is on its way.
        self._pipeline.submit(self._in_order, lease, entry, lambda: self._warm(lease))
        self._preparers.submit(self._prepare, lease, entry)
        self._lookahead.wait_for_next()
        return True

    def _in_order(self, lease: Lease, entry: Entry, action: Callable[[], object]) -> None:
        """Do something on the device, once no earlier claim's model would have to go for it."""
        is_admitted = self._order.admits(lease, lambda: self._in_order(lease, entry, action))
        entry.set_postponed(not is_admitted)
        if is_admitted:
            action()

    def _warm(self, lease: Lease) -> None:
        with attempts.about(lease.claim, lease.span):
            try:
                self._phases.running.warm(lease)
            except errors.GpuFaultError as exc:
                self._end_faulty(lease, exc)
            except Exception:
                # It is met again when it is edited; what was postponed with it is not to be forgotten.
                log.exception("its model could not be loaded ahead")

    def _prepare(self, lease: Lease, entry: Entry) -> None:
        prepared = self._attempt(lease, "prepare", lambda: self._phases.preparing.prepare(lease))
        if prepared is None:
            entry.end()
            for ask_again in self._order.settle(lease):
                self._pipeline.submit(ask_again)
        else:
            self._belt.arrived(lease)
            entry.prepared()
            self._pipeline.submit(self._in_order, lease, entry, lambda: self._edit(prepared, entry))
        if lease.claim.tenant in self._left_to_others:
            self.look_now()

    def _edit(self, prepared: Prepared, entry: Entry) -> None:
        lease = prepared.lease
        loaded_before = lease.load_ms
        entry.begin()
        edited = None
        try:
            edited = self._attempt(lease, "edit", lambda: self._phases.running.edit(prepared, entry.advance))
        finally:
            entry.end(is_typical=edited is not None and lease.load_ms == loaded_before)
        if edited is not None:
            self._finishers.submit(self._finish, edited)
            self._finish_warming(lease)
        # On this thread, which is the pipeline's: when the conveyor is being closed it takes nothing new.
        for ask_again in self._order.settle(lease):
            ask_again()

    def _finish_warming(self, lease: Lease) -> None:
        """Compile what the edit did without; its picture is on its way meanwhile."""
        try:
            self._phases.running.finish_warming(lease)
        except errors.GpuFaultError as exc:
            self._end_with(exc)
        except Exception:
            log.exception("a model could not be warmed up")

    def _finish(self, edited: Edited) -> None:
        stored = self._attempt(edited.prepared.lease, "store", lambda: self._phases.finishing.store(edited))
        if stored is None:
            return
        if stored.is_to_be_delivered:
            self._belt.leave(stored.lease)
            self._deliverers.submit(self._publish, stored, on_belt=False)
        else:
            self._publish(stored, on_belt=True)

    def _publish(self, stored: Stored, *, on_belt: bool) -> None:
        lease = stored.lease
        if self._attempt(lease, "publish", lambda: self._phases.finishing.publish(stored), on_belt=on_belt) is not None:
            self._let_go(lease, on_belt=on_belt)

    def _attempt(self, lease: Lease, name: str, phase: Callable[[], T], *, on_belt: bool = True) -> T | None:
        """Run a phase; when it fails, record that and let the generation go."""
        with attempts.about(lease.claim, lease.span):
            try:
                return attempts.traced(name, phase)
            except errors.GpuFaultError as exc:
                self._end_faulty(lease, exc)
            except errors.DarkroomError as exc:
                self._give_up(lease, exc)
            except Exception:
                log.exception("an edit failed")
                self._give_up(lease, errors.InternalError("The edit failed on our side"))
            self._let_go(lease, on_belt=on_belt)
        return None

    def _end_with(self, fault: errors.GpuFaultError) -> None:
        """Nothing can be computed any more in this process: what it holds goes back, and the supervisor starts another."""
        log.error("the GPU failed; ending this process", exc_info=fault)
        try:
            self._keeper.hand_back()
        finally:
            self._end_process(EXIT_GPU_FAULT)

    def _end_faulty(self, lease: Lease, fault: errors.GpuFaultError) -> None:
        """The same, with a claim that met it, for which it counts."""
        try:
            self._give_up(lease, fault)
            self._keeper.drop(lease)
        finally:
            self._end_with(fault)

    def _give_up(self, lease: Lease, error: errors.DarkroomError) -> None:
        """Whatever happens here, the generation is let go of: its lease runs out, and the housekeeping worker sees to it."""
        try:
            self._phases.retrying.give_up(lease, error)
        except Exception:
            log.exception("%s: could not be recorded as failed; its lease will run out", lease.claim.id)

    def _let_go(self, lease: Lease, *, on_belt: bool) -> None:
        self._keeper.drop(lease)
        if on_belt:
            self._belt.leave(lease)
