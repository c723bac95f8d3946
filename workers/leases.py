"""Keeps the leases of what this worker holds: one thread renews them all, reports progress, and ends what hangs."""

import base64
import io
import logging
import threading
import time
from collections.abc import Callable

from PIL import Image

from storage.contracts import errors, generations
from storage.ledger import call, claims
from workers import attempts
from workers.attempts import EXIT_HANGING

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 0.1
"""Progress is written at most this often, whatever the step rate."""

HANGING_S = 5.0
"""An edit past its limit ends at its next step; one that reaches none within this long after is hanging."""

PREVIEW_QUALITY = 75


class Lease:
    """One held claim. The pipeline's thread only touches memory here; it never waits for the network."""

    def __init__(self, claim: generations.Claim) -> None:
        self.claim = claim
        self.span = attempts.begun(claim)
        self.phase = generations.Phase.PREPARING
        self.step = 0
        self.loaded_percent = 0
        self.load_ms = 0
        self.preview = ""
        self._stopped = threading.Event()
        self._loading_since: float | None = None
        self._editing_since: float | None = None
        self._advanced_at = 0.0

    def loaded(self, share: float) -> None:
        """The model it needs is loaded so far, 0 to 1."""
        self.loaded_percent = round(100 * share)
        if share >= 1:
            if self._loading_since is not None:
                self.load_ms += round((time.monotonic() - self._loading_since) * 1000)
            self._loading_since, self.phase = None, generations.Phase.PREPARING
        elif self._loading_since is None:
            self._loading_since, self.phase = time.monotonic(), generations.Phase.LOADING

    def show(self, picture: Image.Image) -> None:
        """How it looks so far: kept as a small JPEG until the next beat tells."""
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
        self.preview = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    def begin_editing(self) -> None:
        """The pipeline starts; from now on time is limited. Raises `errors.CancelledError`."""
        self.check()
        self._loading_since = None
        self._editing_since = self._advanced_at = time.monotonic()
        self.phase = generations.Phase.EDITING

    def pause_editing(self) -> None:
        """The pipeline stopped, and is to begin anew; time is not limited meanwhile."""
        self._editing_since = None
        self.step = 0
        self.phase = generations.Phase.PREPARING

    def advance(self, step: int) -> None:
        """`step` denoising steps are done. Raises `errors.CancelledError` and `errors.TimedOutError`."""
        self.step = step
        self._advanced_at = time.monotonic()
        self.check()
        if self.overtime_s > 0:
            raise self.timed_out()

    def end_editing(self) -> None:
        """The pipeline is done with it, and time is no longer limited. Raises `errors.CancelledError`."""
        self._editing_since = None
        self.phase = generations.Phase.FINISHING
        self.check()

    @property
    def overtime_s(self) -> float:
        """Seconds by which the edit is past its limit; negative before."""
        since = self._editing_since
        return float("-inf") if since is None else time.monotonic() - since - self.claim.execution_limit_s

    @property
    def still_s(self) -> float:
        """Seconds since the pipeline finished a step; 0 while it does not run."""
        return 0.0 if self._editing_since is None else time.monotonic() - self._advanced_at

    def timed_out(self) -> errors.TimedOutError:
        """What it fails with when its limit is over."""
        return errors.TimedOutError(f"The edit took longer than {self.claim.execution_limit_s:g} seconds")

    def check(self) -> None:
        """Raises `errors.CancelledError` when the work is no longer wanted."""
        if self._stopped.is_set():
            raise errors.CancelledError("The generation was cancelled or given to another worker")

    @property
    def is_wanted(self) -> bool:
        """Whether the work is, as far as is known here."""
        return not self._stopped.is_set()

    def stop(self) -> None:
        """The work is no longer wanted."""
        self._stopped.set()


class Keeper:
    """Renews leases from a thread of its own."""

    def __init__(
        self,
        ledger: call.Ledger,
        *,
        lease_s: float,
        beat_s: float,
        stall_limit_s: float,
        load_limit_s: float = float("inf"),
        loading_s: Callable[[], float] = lambda: 0.0,
        end_process: Callable[[int], object] = attempts.end_process,
    ) -> None:
        self._ledger = ledger
        self._lease_ms = int(lease_s * 1000)
        self._beat_s = beat_s
        self._stall_limit_s = stall_limit_s
        self._load_limit_s = load_limit_s
        self._loading_s = loading_s
        self._end_process = end_process
        # By id and token: this very worker may be given a generation anew while it still winds up the lost attempt.
        self._leases: dict[tuple[str, int], Lease] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)
        self._thread.start()

    @property
    def lease_ms(self) -> int:
        """How long a lease lasts, in milliseconds."""
        return self._lease_ms

    def hold(self, claim: generations.Claim) -> Lease:
        """Start renewing a claim's lease. Told at once: what takes its worker down in a moment was claimed all the same."""
        lease = Lease(claim)
        self._beat(lease)
        with self._lock:
            self._leases[claim.id, claim.token] = lease
        return lease

    def drop(self, lease: Lease) -> None:
        """Stop renewing: it is over here."""
        lease.span.end()
        with self._lock:
            self._leases.pop((lease.claim.id, lease.claim.token), None)

    def stop(self, id_: str) -> None:
        """A generation was cancelled: if it is held here, its work is to stop."""
        for lease in self._held():
            if lease.claim.id == id_:
                lease.stop()

    def busy(self) -> bool:
        """Whether anything is held."""
        return bool(self._held())

    def hand_back(self) -> None:
        """Give everything held to other workers, uncounted."""
        for lease in self._held():
            lease.stop()
            try:
                if self._ledger.run(claims.release(lease.claim)):
                    log.warning("%s handed back while %s", lease.claim.id, lease.phase)
            except Exception:
                # Whatever it is, the others are handed back too, and the process ends after it.
                log.warning("%s could not be handed back; its lease will run out", lease.claim.id, exc_info=True)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.join()

    def _held(self) -> list[Lease]:
        with self._lock:
            return list(self._leases.values())

    def _run(self) -> None:
        beaten: dict[Lease, tuple[float, int]] = {}
        while not self._closing.wait(PROGRESS_EVERY_S):
            if self._loading_s() > self._load_limit_s:
                self._end_loading()
                return
            leases = self._held()
            now = time.monotonic()
            for lease in leases:
                if lease.overtime_s > HANGING_S or lease.still_s > self._stall_limit_s:
                    self._end_hanging(lease)
                    return
                at, step = beaten.get(lease, (0.0, 0))
                if lease.step > step or now - at >= self._beat_s:
                    beaten[lease] = (now, lease.step)
                    self._beat(lease)
            beaten = {lease: beaten[lease] for lease in leases}

    def _beat(self, lease: Lease) -> None:
        try:
            told = claims.beat(
                lease.claim,
                self._lease_ms,
                lease.step,
                lease.phase,
                loaded_percent=lease.loaded_percent,
                preview=lease.preview,
            )
            if not self._ledger.run(told):
                lease.stop()
        except errors.TransientError as exc:
            log.warning("lease of %s not renewed: %s", lease.claim.id, exc)
        except Exception:
            # Without this thread every lease would run out.
            log.exception("lease of %s not renewed", lease.claim.id)

    def _end_hanging(self, lease: Lease) -> None:
        """A thread cannot be ended, a process can. What else it holds goes back; the supervisor starts a new one."""
        log.error("%s hangs at step %d; ending this process", lease.claim.id, lease.step)
        try:
            if lease.overtime_s > HANGING_S:
                self._ledger.run(claims.fail(lease.claim, lease.timed_out(), rest_s=None, max_attempts=1))
            # Otherwise its lease runs out, and it counts as one that took its worker down.
        except Exception:
            log.warning("%s could not be recorded as failed; its lease will run out", lease.claim.id, exc_info=True)
        self.drop(lease)
        self.hand_back()
        self._end_process(EXIT_HANGING)

    def _end_loading(self) -> None:
        """The same for a load. An edit that waits for it counts as one that took its worker down, or it would tour the fleet."""
        log.error("a model has been loading for more than %g s; ending this process", self._load_limit_s)
        for lease in self._held():
            if lease.phase is generations.Phase.LOADING:
                self.drop(lease)
        self.hand_back()
        self._end_process(EXIT_HANGING)
