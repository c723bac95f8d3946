"""Prompts encoded by another worker: asked for on the ledger, fetched from the object store, remembered here."""

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import redis

from storage import traces
from storage.contracts import errors
from storage.ledger import call, encodings
from workers.leases import Lease

log = logging.getLogger(__name__)

KEPT = 64
"""Prompts that are remembered. What becomes of one takes 4 to 16 MB, in the memory of the machine."""

ASK_AGAIN_S = 5.0
"""Whoever took a prompt may have died with it."""


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

    `limit_s` is how long an answer is waited for; `wait_s` for how long at a time, shorter than the connection's time-out. `wake`
    sends a ticket for a model.
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
    ) -> None:
        self._ledger = ledger
        self._connection = connection
        self._objects = objects
        self._wake = wake
        self._limit_s = limit_s
        self._wait_s = wait_s
        self._kept: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def encoded(self, lease: Lease) -> Mapping[str, bytes] | None:
        """What became of each prompt of a claim, as `Pipeline.text` gives it. None: nobody encodes them in time.

        Who encodes them reads them from the record. Raises `errors.CancelledError` and `errors.StoreUnavailableError`.
        """
        model, prompts = lease.claim.edit.model, lease.claim.edit.prompts
        remembered = self._remembered(model, prompts)
        if remembered is not None:
            return remembered
        with traces.step("encode elsewhere"):
            if not self._is_answered(lease):
                return None
            return self._fetched(lease, model, prompts)

    def _remembered(self, model: str, prompts: Sequence[str]) -> dict[str, bytes] | None:
        with self._lock:
            if not all((model, prompt) in self._kept for prompt in prompts):
                return None
            for prompt in prompts:
                self._kept.move_to_end((model, prompt))
            return {prompt: self._kept[model, prompt] for prompt in prompts}

    def _is_answered(self, lease: Lease) -> bool:
        claim, deadline, asked_at = lease.claim, time.monotonic() + self._limit_s, float("-inf")
        while (now := time.monotonic()) < deadline:
            lease.check()
            if now - asked_at >= ASK_AGAIN_S:
                if not self._ledger.run(encodings.ask(claim)):
                    raise errors.CancelledError("The generation was cancelled or given to another worker")
                self._wake(claim.edit.model)
                asked_at = now
            try:
                reply = self._connection.blpop([encodings.reply_key(claim)], timeout=self._wait_s)
            except redis.RedisError as exc:
                raise errors.StoreUnavailableError(f"The store does not answer ({type(exc).__name__})") from exc
            if reply is not None:
                _, why_not = reply
                if why_not:
                    log.warning("%s: its prompts were not encoded elsewhere: %s", claim.id, why_not)
                return not why_not
        log.warning("%s: nobody encoded its prompts within %g s", claim.id, self._limit_s)
        return False

    def _fetched(self, lease: Lease, model: str, prompts: Sequence[str]) -> Mapping[str, bytes] | None:
        claim = lease.claim
        prefix = encodings.prefix_of(claim.tenant, claim.id, claim.token)
        keys = [encodings.key_of(prefix, number) for number in range(len(prompts))]
        try:
            stored = {prompt: self._objects.get(key) for prompt, key in zip(prompts, keys, strict=True)}
        except (errors.NotFoundError, errors.ObjectsUnavailableError) as exc:
            log.warning("%s: its encoded prompts cannot be fetched: %s", claim.id, exc)
            return None
        with contextlib.suppress(errors.ObjectsUnavailableError):  # they are listed as expiring
            for key in keys:
                self._objects.delete(key)
        with self._lock:
            for prompt, data in stored.items():
                self._kept[model, prompt] = data
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return stored
