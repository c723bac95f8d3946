"""`python -m workers.housekeeping`: keeps the promises no single worker can.

It takes back what silent workers held, replaces lost tickets, archives what is over, deletes what expired. Two of them may
run, and either may die at any moment: every step is one script or repeats harmlessly.
"""

import contextlib
import itertools
import logging
import signal
import threading
import time
from collections.abc import Callable, Collection

from storage import connections, fleet, queues
from storage.contracts import errors
from storage.ledger import call, erasure, expiry, presence, recovery
from storage.ledger.archive import lapses
from storage.ledger.execution import RedisLedger, Replicas
from storage.metrics import registry, served
from storage.objects import Objects
from storage.signals import SignalEvent
from workers.archiving import Archiver
from workers.metrics import HousekeepingMetrics, ServiceCollector
from workers.presence import announced, start
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)

SILENCE_MS = 2500
"""When the sweep itself was silent for this long, Redis was not answering, and healthy workers could not renew either."""

MOST_ERASED, DELETING_S = 100, 5.0
"""Generations erased, and seconds in which objects are deleted, in one go, before the stop is looked at again."""

DELETED_AGAIN_S = 10.0
ERASED_AGAIN_S = 600.0

UNSERVED_S = 20.0
"""How long a queue must be without workers before what waits there is moved."""


class Housekeeping:
    """The sweeps."""

    def __init__(
        self,
        *,
        ledger: call.Ledger,
        objects: Objects,
        archiver: Archiver,
        send_ticket: Callable[[str], None],
        known_queues: Collection[str],
        lease_s: float,
        sweep_s: float,
        max_attempts: int,
        max_losses: int,
        counted: HousekeepingMetrics,
    ) -> None:
        self._counted = counted
        self._ledger = ledger
        self._objects = objects
        self._archiver = archiver
        self._send_ticket = send_ticket
        self._known_queues = frozenset(known_queues)
        self._lease_ms = int(lease_s * 1000)
        self._sweep_s = sweep_s
        self._max_attempts = max_attempts
        self._max_losses = max_losses
        self._missing: dict[str, int] = {}
        self._bucket_is_there = False
        self._served_at: dict[str, float] = {}

    def run(self, stopping: threading.Event) -> None:
        """Sweep until told to stop.

        Three loops: recovery must not wait for an object store that answers slowly, nor take that wait for a silence of Redis;
        and what is over leaves Redis however much is to be deleted.
        """
        recovering = (self.recover, self.wake, self.reroute, self.replace_tickets)
        besides = (
            (self.ensure_bucket, self.erase, self.delete_expired),
            (self._archiver.adopt, self._archiver.move),
        )
        for sweep in itertools.chain(recovering, *besides):
            # One that never goes well is late from here on: what was never told cannot be missed.
            self._counted.swept(sweep.__name__)
        others = [threading.Thread(target=self._loop, args=[stopping, *sweeps]) for sweeps in besides]
        for thread in others:
            thread.start()
        self._loop(stopping, *recovering)
        for thread in others:
            thread.join()

    def _loop(self, stopping: threading.Event, *sweeps: Callable[[], None]) -> None:
        while not stopping.wait(self._sweep_s):
            for sweep in sweeps:
                try:
                    sweep()
                    self._counted.swept(sweep.__name__)
                except errors.TransientError as exc:
                    # A store that does not answer is asked again next time.
                    log.warning("%s", exc)
                except Exception:
                    # Whatever is wrong with one sweep, the others keep what is promised.
                    log.exception("a sweep failed; it is tried again")

    def ensure_bucket(self) -> None:
        """Create the bucket on a new object store. Raises `errors.ObjectsUnavailableError`."""
        if not self._bucket_is_there:
            self._objects.ensure_bucket()
            self._bucket_is_there = True

    def recover(self) -> None:
        """Give what silent workers held to others. Raises `errors.StoreUnavailableError`."""
        stall_ms = max(SILENCE_MS, int(self._sweep_s * 2500))
        recover = recovery.recover(
            lease_ms=self._lease_ms, stall_ms=stall_ms, max_attempts=self._max_attempts, max_losses=self._max_losses
        )
        recovered = self._ledger.run(recover)
        self._counted.moved("recover", recovered.values())
        for id_, state in recovered.items():
            log.warning("%s was held by a silent worker and is %s", id_, state)

    def wake(self) -> None:
        """End rests and waits that are over. Raises `errors.StoreUnavailableError`."""
        woken = self._ledger.run(recovery.wake())
        self._counted.moved("wake", woken.values())
        for id_, state in woken.items():
            log.info("%s is %s", id_, state)

    def reroute(self) -> None:
        """Move what waits for workers that are gone to others that may run it. Raises `errors.StoreUnavailableError`."""
        now = time.monotonic()
        served = {
            queue
            for one in fleet.gpu_workers(self._ledger.run(presence.present())).values()
            for queue in queues.queues_of_worker(one["models"], one["gpu_type"], one["region"])
        }
        self._served_at |= dict.fromkeys(served, now)
        # After a silence of Redis nobody is there for a moment: that moves nothing.
        lately = [queue for queue, at in self._served_at.items() if now - at < UNSERVED_S]
        rerouted = self._ledger.run(recovery.reroute(lately, sorted(served)))
        self._counted.moved("reroute", ["rerouted"] * len(rerouted))
        for id_, queue in rerouted.items():
            log.info("%s waits on %s now", id_, queue)

    def replace_tickets(self) -> None:
        """Send the tickets that have been missing for two sweeps. Raises `errors.StoreUnavailableError`."""
        missing = {row.queue: row.missing_tickets for row in self._ledger.run(recovery.backlog())}
        for queue, now in missing.items():
            if queue not in self._known_queues:
                log.warning("generations wait on %s, which the catalog no longer has", queue)
                continue
            # One look could fall between an API's record and its ticket.
            for _ in range(min(now, self._missing.get(queue, 0))):
                self._send_ticket(queue)
        self._missing = missing

    def erase(self) -> None:
        """Erase what was to be kept for less than the usual time. Raises `errors.StoreUnavailableError`."""
        # Their objects are listed as expired by the same script, and go with those.
        for id_, tenant in self._ledger.run(erasure.over(MOST_ERASED)):
            try:
                self._ledger.run(erasure.erase(id_, tenant, only_due=True))
            except errors.TransientError:
                raise
            except Exception:
                # One that cannot be erased holds up no other.
                log.exception("%s is not erased; it is tried again", id_)
                self._ledger.run(erasure.postpone(id_, by_s=ERASED_AGAIN_S))
            else:
                log.info("%s is erased", id_)
                self._counted.moved("erase", ["erased"])

    def delete_expired(self) -> None:
        """Remove objects whose time is over. Raises `errors.StoreUnavailableError`."""
        until = time.monotonic() + DELETING_S
        while time.monotonic() < until:
            # Asked for one by one: a generation that is tried anew keeps what its prefix will hold.
            expired = self._ledger.run(expiry.expired())
            if expired is None:
                return
            again_ms: int | None = expired.taken_ms + round(DELETED_AGAIN_S * 1000)
            try:
                again_ms = self._deleted(expired)
            except errors.StoreUnavailableError:
                raise
            except errors.TransientError as exc:
                log.warning("%s is not deleted yet: %s", expired.prefix, exc)
            except Exception:
                # One list that cannot be read holds up nothing else.
                log.exception("%s is not deleted; it is tried again", expired.prefix)
            self._ledger.run(expiry.forget(expired, again_ms=again_ms))

    def _deleted(self, expired: expiry.Expired) -> int | None:
        """Delete what is below a prefix; when the rest is to go, None when nothing is left."""
        if expired.prefix.startswith(lapses.LISTS):
            return self._archiver.lapse(expired.prefix)
        while entries := self._objects.entries(expired.prefix):
            # A retry gave it more time. What is stored from here on is not deleted: another attempt has another key.
            if not self._ledger.run(expiry.is_held(expired)):
                return None
            for entry in entries:
                self._objects.delete(entry.key)
        return None


def run_housekeeping(settings: WorkerSettings) -> None:
    """Sweep until SIGTERM or SIGINT."""
    known = settings.read_catalog()
    stopping = SignalEvent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    known_queues = known.queues
    app = queues.celery_app(settings, known_queues)
    with contextlib.closing(connections.connect(settings)) as connection:
        counted = HousekeepingMetrics(registry())
        ledger = RedisLedger(connection, Replicas.of(settings))
        objects = Objects(settings, observe=counted.object_store)
        counted.registry.register(ServiceCollector(RedisLedger(connection), connection))
        housekeeping = Housekeeping(
            ledger=ledger,
            objects=objects,
            archiver=Archiver(ledger, objects, after_s=settings.archive_after_s, moved=counted.moved),
            send_ticket=lambda queue: queues.send_ticket(app, queue),
            known_queues=known_queues,
            lease_s=settings.lease_s,
            sweep_s=settings.sweep_s,
            max_attempts=settings.max_attempts,
            max_losses=settings.max_losses,
            counted=counted,
        )
        role = announced(connection, settings.worker_name, lambda: {"role": "housekeeping"})
        with role, served(counted.registry, settings):
            housekeeping.run(stopping)


if __name__ == "__main__":
    start(WorkerSettings, run_housekeeping)
