"""Calls of webhooks' receivers: one at a time for each caller, in threads of their own."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from storage.gate import RefusedError
from storage.outside import NoPublicAddressError, Outside, TooLongError, UnansweredError

AT_ONCE = 32
MAX_ANSWER_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a call, in words. `is_final`: to call again would change nothing. `answered`: the receiver works."""

    text: str
    status: int | None = None
    is_final: bool = False
    answered: bool = True
    took_ms: int = 0


class Called(Protocol):
    """Told of each call."""

    def __call__(self, *, is_answered: bool, is_accepted: bool) -> None:
        """The receiver works, and took it, or not."""
        ...


class Calls:
    """Sends messages to addresses that callers named."""

    def __init__(
        self,
        *,
        limit_s: float,
        allowed: tuple[str, ...] = (),
        at_once: int = AT_ONCE,
        called: Called = lambda *, is_answered, is_accepted: None,
    ) -> None:
        """`limit_s` is how long an answer may take, `allowed` names internal hosts that may be called, `called` counts."""
        self._called = called
        self.limit_s = limit_s
        self._outside = Outside(limit_s=limit_s, allowed=allowed)
        # Threads of its own: somebody's slow server must not hold up what else runs in threads.
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="webhooks")

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Send a JSON body."""
        sent = {"Content-Type": "application/json", **headers}
        post = partial(self._post, url, body, sent)
        outcome = await asyncio.get_running_loop().run_in_executor(self._threads, post)
        self._called(is_answered=outcome.answered, is_accepted=200 <= (outcome.status or 0) < 300)
        return outcome

    def close(self) -> None:
        """Close connections; what is not answered is given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._outside.close()

    def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        began = time.monotonic()

        def took_ms() -> int:
            return round((time.monotonic() - began) * 1000)

        try:
            answer = self._outside.exchange("POST", url, headers=headers, content=body, max_bytes=MAX_ANSWER_BYTES)
        except RefusedError:
            return Outcome(
                text="the address may not be called: it is not public, nor in DARKROOM_FETCH_ALLOWED", is_final=True
            )
        except NoPublicAddressError as exc:
            # No receiver that is down: its name may be mended, and nobody is woken for it.
            return Outcome(text=str(exc), took_ms=took_ms())
        except UnansweredError as exc:
            return Outcome(text=str(exc), answered=False, took_ms=took_ms())
        except TooLongError:
            return Outcome(text="answered 200, at length", status=200, is_final=True, took_ms=took_ms())
        status = answer.status
        return Outcome(
            text=f"answered {status}",
            status=status,
            is_final=200 <= status < 300,
            answered=status < 500,
            took_ms=took_ms(),
        )
