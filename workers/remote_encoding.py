"""Prompts encoded by another worker: asked for on the ledger, fetched from the object store, remembered here."""

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import redis

from storage import fleet, traces
from storage.contracts import errors
from storage.ledger import call, encodings
from workers.leases import Lease

log = logging.getLogger(__name__)

KEPT = 64
"""Prompts that are remembered. What becomes of one takes 4 to 16 MB, in the memory of the machine."""

ASK_AGAIN_S = 5.0
"""The worker that took a prompt may have died with it."""


class ObjectStore(Protocol):
    """Where encoded prompts pass through."""

    def get(self, key: str) -> bytes:
        """Fetch. Raises `errors.NotFoundError` and `errors.ObjectsUnavailableError`."""
        ...

    def delete(self, key: str) -> None:
        """Delete. Raises `errors.ObjectsUnavailableError`."""
        ...


class RemoteEncoding:
    """Has a claim's prompts encoded. Safe to use from several threads.

    `limit_s` is how long an answer is waited for, not counting the time in which a text encoder loads the model (`is_loading`);
    `wait_s` for how long at a time, shorter than the connection's time-out. `wake` sends a ticket for a model. Those in this
    worker's `region` are asked.
    """

    def __init__(
        self,
        *,
        ledger: call.Ledger,
        connection: redis.Redis,
        objects: ObjectStore,
        wake: Callable[[str], None],
        limit_s: float,
        wait_s: float,
        region: str = fleet.DEFAULT_REGION,
        is_loading: Callable[[str], bool] = lambda model: False,
    ) -> None:
        self._ledger = ledger
        self._connection = connection
        self._objects = objects
        self._wake = wake
        self._limit_s = limit_s
        self._wait_s = wait_s
        self._region = region
        self._is_loading = is_loading
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def encoded(self, lease: Lease) -> Mapping[str, bytes] | None:
        """What became of each prompt of a claim, as `Pipeline.text` gives it. None: nobody encodes them in time.

        Who encodes them reads them from the record. Raises `errors.CancelledError`.
        """
        model, prompts = lease.claim.edit.model, lease.claim.edit.prompts
        if (remembered := self._remembered(model, prompts)) is not None:
            return remembered
        with traces.step("encode elsewhere"):
            try:
                return self._asked_for(lease, model, prompts)
            finally:
                with contextlib.suppress(errors.TransientError):
                    self._ledger.run(encodings.withdraw(lease.claim, self._region))

    def _remembered(self, model: str, prompts: Sequence[str]) -> dict[str, bytes] | None:
        with self._lock:
            if not all((model, prompt) in self._kept for prompt in prompts):
                return None
            for prompt in prompts:
                self._kept.move_to_end((model, prompt))
            return {prompt: self._kept[model, prompt] for prompt in prompts}

    def _asked_for(self, lease: Lease, model: str, prompts: Sequence[str]) -> Mapping[str, bytes] | None:
        waited_s, asked_at, before = 0.0, float("-inf"), time.monotonic()
        while waited_s < self._limit_s:
            lease.check()
            now = time.monotonic()
            waited_s, before = waited_s + (0 if self._is_loading(model) else now - before), now
            try:
                if now - asked_at >= ASK_AGAIN_S:
                    if not self._ledger.run(encodings.ask(lease.claim, self._region)):
                        raise errors.CancelledError("The generation was cancelled or given to another worker")
                    self._wake(model)
                    asked_at = now
                reply = self._connection.blpop([encodings.reply_key(lease.claim)], timeout=self._wait_s)
                if reply is None:
                    continue
                why_not = str(reply[1])
                if not why_not:
                    return self._fetched(lease, model, prompts)
            except (redis.RedisError, errors.TransientError, errors.NotFoundError) as exc:
                # A store that does not answer for a moment costs that moment, not an attempt.
                why_not = type(exc).__name__
                time.sleep(self._wait_s)
            log.warning("%s: its prompts are not encoded: %s", lease.claim.id, why_not)
            if why_not == errors.ModelUnavailableError.code:
                return None
        log.warning("%s: nobody encoded its prompts within %g s", lease.claim.id, self._limit_s)
        return None

    def _fetched(self, lease: Lease, model: str, prompts: Sequence[str]) -> Mapping[str, bytes]:
        claim = lease.claim
        prefix = encodings.prefix_of(claim.tenant, claim.id, claim.token)
        keys = [encodings.key_of(prefix, number) for number in range(len(prompts))]
        stored = {prompt: self._objects.get(key) for prompt, key in zip(prompts, keys, strict=True)}
        with contextlib.suppress(errors.ObjectsUnavailableError):  # they are listed as expiring
            for key in keys:
                self._objects.delete(key)
        with self._lock:
            for prompt, data in stored.items():
                self._kept[model, prompt] = data
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return stored
