"""What every request and answer passes: an id, a limit on bodies, and headers that keep answers what they are."""

import asyncio
import logging
import random
import re
from collections import Counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http import remarks
from storage import logs
from storage.contracts import errors

SAFE_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class SafeHeaders:
    """Answers are for the caller alone, are what they say they are, and carry what was remarked on (`api.http.remarks`)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to every answer that does not set them itself."""

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                safe = [pair for pair in SAFE_HEADERS if pair[0] not in present]
                message["headers"] = [*message["headers"], *safe, *remarks.of(scope)]
            await send(message)

        await self._app(scope, receive, add if scope["type"] == "http" else send)


log = logging.getLogger(__name__)

REQUEST_ID = "X-Request-Id"
_SENT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """Gives each request an id, its own `X-Request-Id` where it has a plain one, in the answer's header and in every log line."""

    def __init__(self, app: ASGIApp, fault: ASGIApp) -> None:
        """`fault` answers where something went wrong."""
        self._app = app
        self._fault = fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the id, unless the route answers with one of its dialect's."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(REQUEST_ID, "")
        # No secret; reading the system's random numbers would hand the interpreter to another thread.
        id_ = sent if _SENT_ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"

        has_begun = False

        async def add(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                MutableHeaders(scope=message).setdefault(REQUEST_ID, id_)
            await send(message)

        with logs.about(request_id=id_):
            try:
                await self._app(scope, receive, add)
            except ClientDisconnect:
                log.debug("the client left before its request was whole")
            except Exception:
                # Here and not by the server, whose line would not say which request that was.
                log.exception("a request failed")
                if has_begun:
                    raise
                await self._fault(scope, receive, add)


SMALL = 2**20
"""Bodies of up to a mebibyte have room in any case."""

UNFINISHED = 64 * 1024
"""What a body counts against its tenant's share at the least while it is coming: it has a connection."""

_RELEASE, _OWNER = "darkroom.release", "darkroom.body_owner"


def release_body(request: Request) -> None:
    """A request's body is stored elsewhere now: it counts no more among those that are received."""
    request.scope.get(_RELEASE, lambda: None)()


def body_belongs_to(request: Request, tenant: str) -> None:
    """A request's body counts against this tenant's share, half of the room."""
    request.scope.get(_OWNER, lambda _: None)(tenant)


AGAIN_S = 2.0
"""When a body may come again for which there was no room."""


class BodyLimit:
    """Refuses bodies over a size, whether declared or counted, and those that do not come, in a dialect's own words.

    Of all large bodies together it lets so many bytes be received at a time: each counts, as far as it has come, until what it
    asks for is accepted, or its request answered. The framework's limit answers a declared length itself, in plain text.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, most_held: int, pause_s: float, limit_s: float) -> None:
        """`most_held` bytes of all that are not `SMALL`.

        `pause_s` seconds between two pieces of one at the most, `limit_s` for all of it.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._most_held, self._held = most_held, 0
        self._share = max(most_held // 2, max_bytes)
        self._of_tenants: Counter[str] = Counter()
        self._pause_s, self._limit_s = pause_s, limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count while the route reads.

        Reading raises `errors.PayloadTooLargeError` for what is too much, `errors.InvalidInputError` for what is too slow, and
        `errors.StoreFullError` when there is no room, or none for its tenant.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        declared = int(length) if length.isdecimal() else 0
        received, in_hand, share, is_whole, owner = 0, 0, 0, False, ""
        until = asyncio.get_running_loop().time() + self._limit_s

        def hold(size: int) -> None:
            nonlocal in_hand
            if size <= SMALL:
                return
            if self._held + size - in_hand > self._most_held:
                raise errors.StoreFullError("The service is receiving as much as it can at once", retry_after=AGAIN_S)
            self._held += size - in_hand
            in_hand = size

        def take_of_share(size: int) -> None:
            """Of its tenant's, for a large body, or one that is still coming: small ones that came have room."""
            nonlocal share
            if not owner:
                return
            if size > share and self._of_tenants[owner] + size - share > self._share:
                message = "The service is receiving as much of yours as it can at once"
                raise errors.StoreFullError(message, retry_after=AGAIN_S)
            self._of_tenants[owner] += size - share
            share = size
            if not self._of_tenants[owner]:
                del self._of_tenants[owner]

        def belongs_to(tenant: str) -> None:
            nonlocal owner
            if not owner:
                owner = tenant

        async def counted() -> Message:
            nonlocal received, is_whole
            self._check(declared)
            # After the body comes nothing but the client's leaving, which may take its time.
            message = await receive() if is_whole else await self._in_time(receive, until)
            is_whole = is_whole or not message.get("more_body", False)
            received += len(message.get("body", b""))
            self._check(received)
            take_of_share(max(received, UNFINISHED) if not is_whole else received if received > SMALL else 0)
            hold(max(in_hand, received))
            return message

        def release() -> None:
            nonlocal in_hand
            self._held -= in_hand
            in_hand = 0
            take_of_share(0)

        scope[_RELEASE], scope[_OWNER] = release, belongs_to
        try:
            await self._app(scope, counted, send)
        finally:
            release()

    async def _in_time(self, receive: Receive, until: float) -> Message:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(until, loop.time() + self._pause_s)):
                return await receive()
        except TimeoutError:
            limits = f"{self._pause_s:g} seconds between its pieces, {self._limit_s:g} in all"
            raise errors.InvalidInputError(f"The body did not come in time: at most {limits}") from None

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise errors.PayloadTooLargeError(f"The body may have at most {self._max_bytes} bytes")
