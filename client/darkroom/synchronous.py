"""The client for everybody who writes no coroutines. Made from `asynchronous` by `python -m darkroom.twin`."""

import contextlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx
import httpx_sse

from darkroom import answers, inputs
from darkroom.faults import ApiError, CancelledError, DarkroomError, EditFailedError, GoneError, UnreachableError
from darkroom.inputs import Sources
from darkroom.shapes import Accepted, Event, Generation, Picture

log = logging.getLogger(__name__)

LOADING_S = 660.0
"""How long a model may load while its start is waited for: a little longer than the service's own limit."""

TRIES = 8
"""Of one request, and of one connection to the events before a generation is polled instead."""
LONGEST_PAUSE_S = 10.0
TOLD_S = 1.0
"""From such a pause on the log tells what is waited for."""
AGAIN_S = 0.5
"""Before a stream that ended is opened again."""
POLL_S = 30.0
"""Seconds a poll waits at the service."""


class Client:
    """A pool of connections to one service, with one key.

    Requests that change nothing, or may be repeated because they carry an idempotency key (all that submit do), are repeated when
    the connection breaks or the service is busy. Methods raise `darkroom.DarkroomError`.
    """

    def __init__(self, url: str, api_key: str, *, timeout_s: float = 30) -> None:
        """`url` such as `http://127.0.0.1:8000`; `timeout_s` for one answer.

        Raises `ValueError` for an address or a key that cannot be one.
        """
        self.url = answers.checked_url(url)
        self._timeout_s = timeout_s
        self._is_known = False
        headers = {"Authorization": f"Bearer {answers.checked_key(api_key)}"}
        timeout = httpx.Timeout(timeout_s, connect=5)
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout)
        # The key is for the service alone, and results lie elsewhere.
        self._downloads = httpx.Client(timeout=httpx.Timeout(60, connect=5), follow_redirects=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections."""
        self._http.close()
        self._downloads.close()

    def edit(
        self,
        image: Sources,
        prompt: str,
        *,
        on_event: Callable[[Event], None] | None = None,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> Picture:
        """Edit a picture and wait for the result, which keeps the input's shape unless the parameters say otherwise.

        `parameters` are those of `enqueue`. `on_event` is called with each event as it comes. What stops the waiting (a task
        that is cancelled, a timeout, Ctrl-C) cancels the edit, unless it has an idempotency key, by which it may be asked for
        again. Raises `EditFailedError`, `CancelledError`, and as `enqueue`.
        """
        if parameters.get("num_generations", 1) != 1:
            raise ValueError("edit makes one picture; enqueue makes several, each with an id")
        accepted = self.enqueue(image, prompt, idempotency_key=idempotency_key, **parameters)
        try:
            for event in self.follow(accepted.ids[0], since=accepted.cursor):
                if on_event is not None:
                    on_event(event)
            return self.picture(accepted.ids[0])
        except BaseException as exc:
            if not isinstance(exc, Exception) and idempotency_key is None:
                with contextlib.suppress(DarkroomError):
                    self.cancel(accepted.ids[0], tries=1)
            raise

    def enqueue(
        self,
        image: Sources,
        prompt: str,
        *,
        model: str = "flux-kontext-dev",
        mask: Sources = None,
        idempotency_key: str | None = None,
        **parameters: Any,
    ) -> Accepted:
        """Enqueue an edit, of one picture or of several, or with `image` None a picture from text alone.

        A picture is a path, an http(s) URL, a data URI, bytes or Pillow's image; so is the `mask` (`mask_image`), white where
        the first is to be painted anew. `parameters` are the model's (docs/parameters.md) and those of every request
        (docs/api.md). Without an aspect ratio or a size the result has the input's shape.
        """
        mask = inputs.either(mask, parameters.pop("mask_image", None), "mask", "mask_image")
        fields = {"model": model, "prompt": prompt, **inputs.shaped(parameters, has_picture=image is not None)}
        request = inputs.request_of(fields, {"input_image": image, "mask_image": mask})
        return Accepted.of(self._submit("/api/ai/queue", idempotency_key, **request))

    def replay(self, id_: str, *, idempotency_key: str | None = None) -> Accepted:
        """Run a generation again: same pictures, parameters and seed."""
        return Accepted.of(self._submit(answers.path("/api/ai/queue/{}/replay", id_), idempotency_key))

    def retry(self, id_: str) -> Generation:
        """Queue a failed generation again, under the same id."""
        return Generation.of(self._json("POST", answers.path("/api/ai/queue/{}/retry", id_)))

    def generation(self, id_: str, *, wait_s: float = 0) -> Generation:
        """One generation; with `wait_s`, as soon as it is over or the seconds are."""
        query = {"wait": wait_s} if wait_s else {}
        timeout = httpx.Timeout(wait_s + self._timeout_s, connect=5)
        path = answers.path("/api/ai/queue/{}", id_)
        # A long poll that breaks is not repeated as it is: `wait` asks briefly then.
        answer = self._json("GET", path, tries=1 if wait_s else TRIES, params=query, timeout=timeout)
        return Generation.of(answer)

    def wait(self, id_: str) -> Generation:
        """A generation once it is over, by long polls."""
        while True:
            try:
                generation = self.generation(id_, wait_s=POLL_S)
            except (UnreachableError, ApiError) as exc:
                if isinstance(exc, ApiError) and exc.status not in answers.BUSY:
                    raise
                # Connections that do not last, or a service that is away for a moment.
                time.sleep(1)
                generation = self.generation(id_)
            if generation.is_over:
                return generation

    def picture(self, id_: str) -> Picture:
        """A generation's result, waited for. Raises `EditFailedError`, `CancelledError` and `GoneError`."""
        return self.download(self.wait(id_))

    def download(self, generation: Generation) -> Picture:
        """The result of a generation that is over.

        Raises `EditFailedError`, `CancelledError`, `GoneError`, and `ValueError` for one that is not over.
        """
        if not generation.is_over:
            raise ValueError(f"{generation.id} has no result yet: it is {generation.status}")
        if generation.status == "cancelled":
            raise CancelledError(generation)
        if not generation.is_succeeded:
            raise EditFailedError(generation)
        if generation.result_url is None:
            raise GoneError(generation)
        try:
            answer = self._downloaded(generation.result_url)
        except UnreachableError:
            # The object store may be out of reach where the service is not: it has the result, too.
            answer = self._downloaded(generation.raw["download_url"])
        content_type = answer.headers.get("content-type", "application/octet-stream")
        return Picture(generation=generation, data=answer.content, content_type=content_type)

    def fetch(self, url: str) -> bytes:
        """What lies behind a URL that the service signed: a result, or a batch's manifest. The key is not sent there."""
        return (self._downloaded(url)).content

    def _downloaded(self, url: str) -> httpx.Response:
        answer = self._repeated(lambda: self._downloads.get(url), where=url.partition("?")[0])
        if answer.status_code != 200:
            raise answers.fault_of(answer, "It could not be downloaded")
        return answer

    def generations(self, *, limit: int | None = None, **filters: Any) -> Iterator[Generation]:
        """Generations, newest first, page by page: the unfinished ones, or those that match (`status`, `model`, `group`, …)."""
        query = {name: value for name, value in filters.items() if value is not None}
        count = 0
        while True:
            page = self._json("GET", "/api/ai/queue", params={**query, "limit": min(limit or 100, 100)})
            for one in page["generations"]:
                if limit is not None and count == limit:
                    return
                count += 1
                yield Generation.of(one)
            if page["next"] is None:
                return
            query["after"] = page["next"]

    def events(
        self, *, since: str | None = None, generation_id: str | None = None, types: str | None = None
    ) -> Iterator[Event]:
        """Events as they happen, resumed without a gap when the connection breaks. Ends never by itself."""
        cursor, failures = since, 0
        while True:
            query = {"since": cursor, "generation_id": generation_id, "types": types}
            params = {name: value for name, value in query.items() if value is not None}
            try:
                with httpx_sse.connect_sse(
                    self._http, "GET", "/api/events", params=params, timeout=httpx.Timeout(60, connect=5)
                ) as source:
                    if source.response.status_code in answers.BUSY and failures + 1 < TRIES:
                        failures += 1
                        time.sleep(answers.pause_s(failures))
                        continue
                    if source.response.status_code != 200:
                        source.response.read()
                        raise answers.fault_of(source.response)
                    for message in source.iter_sse():
                        if not message.data:
                            continue  # a comment that keeps the connection alive, which the decoder takes for an event
                        cursor, failures = message.id or cursor, 0
                        yield Event(cursor=cursor or "", type=message.event, data=json.loads(message.data))
            except answers.BROKEN as exc:
                failures += 1
                if failures == TRIES:
                    raise UnreachableError(self.url, answers.reason(exc)) from exc
            # A stream that ends at once must not be opened again and again without a pause.
            time.sleep(answers.pause_s(failures) if failures else AGAIN_S)

    def follow(self, id_: str, *, since: str | None = None) -> Iterator[Event]:
        """Events of one generation until it is over; where none arrive, it is polled until then."""
        # Without a cursor what happened long ago is not told again.
        if since is None and (self.generation(id_)).is_over:
            return
        try:
            for event in self.events(since=since, generation_id=id_):
                is_end = event.is_terminal and event.generation_id == id_
                if is_end and since is None and not (self.generation(id_)).is_over:
                    continue  # it failed, and was retried since
                if event.generation_id == id_:
                    yield event
                if is_end:
                    return
                if event.type == "resync":
                    break
        except UnreachableError:
            pass
        except ApiError as exc:
            if exc.status not in answers.BUSY:
                raise
        self.wait(id_)

    def cancel(self, id_: str, *, tries: int = TRIES) -> bool:
        """Cancel a generation; False: it was over already."""
        answer = self._json("DELETE", answers.path("/api/ai/queue/{}", id_), tries=tries)
        return bool(answer["effect"] == "cancelled")

    def erase(self, id_: str) -> Mapping[str, int]:
        """Delete all that is kept of a generation; how many generations, events and objects that were."""
        answer = self._json("DELETE", answers.path("/api/ai/queue/{}", id_), params={"erase": "true"})
        return answer["erased"]  # type: ignore[no-any-return]

    def verify(self, image: Sources) -> Mapping[str, Any]:
        """What a picture's content credentials say, and whether it came from this service."""
        return self._json("POST", "/api/ai/verify", **inputs.request_of({}, {"image": image}))

    def models(self) -> list[Mapping[str, Any]]:
        """The models, each with the schema of its requests."""
        return list((self._json("GET", "/api/ai/models"))["data"])

    def model(self, name: str) -> Mapping[str, Any]:
        """One of them."""
        return self._json("GET", answers.path("/api/ai/models/{}", name))

    def start(self, model: str) -> Mapping[str, Any]:
        """Have a model loaded where it is not. The key needs the scope `models`."""
        path, timeout = answers.path("/v1/model-families/{}/start", model), httpx.Timeout(LOADING_S, connect=5)
        return self._json("POST", path, json={}, timeout=timeout)

    def estimates(self, model: str, **conditions: Any) -> list[Mapping[str, Any]]:
        """What an edit is likely to take and cost, target by target."""
        query = {name: value for name, value in conditions.items() if value is not None}
        answer = self._json("GET", answers.path("/api/ai/models/{}/estimate", model), params=query)
        return list(answer["targets"])

    def plan(self, model: str, *, gpu_type: str | None = None, profile: str | None = None) -> Mapping[str, Any]:
        """How a model runs on a GPU type, or on each: the answer's `placements`."""
        query = {name: value for name, value in (("gpu_type", gpu_type), ("profile", profile)) if value}
        return self._json("GET", answers.path("/api/ai/models/{}/placement", model), params=query)

    def fleet(self) -> list[Mapping[str, Any]]:
        """The workers that edit. Those that encode prompts for them are the answer's `text_encoders`."""
        return list((self._json("GET", "/api/ai/fleet"))["workers"])

    def usage(self, month: str | None = None) -> Mapping[str, Any]:
        """What this key's tenant used in a month such as `2026-11`; by default in this one."""
        return self._json("GET", "/api/ai/usage", params={"month": month} if month else {})

    def token(self, purpose: str = "events", **wish: Any) -> str:
        """A short-lived token for a page: see docs/security.md."""
        answer = self._json("POST", "/api/ai/tokens", json={"purpose": purpose, **wish})
        return str(answer["token"])

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """Any other route of the native API: its answer's JSON; `request` is httpx's."""
        return self._json(method, path, **request)

    def _submit(self, path: str, idempotency_key: str | None, **request: Any) -> Mapping[str, Any]:
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return self._json("POST", path, headers=headers, **request)

    def _json(self, method: str, path: str, *, tries: int = TRIES, **request: Any) -> Mapping[str, Any]:
        # What changes something is repeated with an idempotency key alone.
        is_repeatable = method != "POST" or "Idempotency-Key" in httpx.Headers(request.get("headers"))
        tries = tries if is_repeatable else 1
        answer = self._repeated(lambda: self._http.request(method, path, **request), tries=tries)
        body: Mapping[str, Any] = answers.body_of(answer)
        return body

    def _repeated(self, send: Callable[[], Any], *, tries: int = TRIES, where: str | None = None) -> httpx.Response:
        """The answer to a request, repeated while it may be and that could help; `where` it goes, if not to the service."""
        for tried in range(1, tries + 1):
            is_last = tried == tries
            try:
                answer: httpx.Response = send()
            except (httpx.RequestError, httpx.InvalidURL) as exc:
                # Where nobody ever answered, the address is wrong rather than the service away for a moment.
                is_hopeless = not isinstance(exc, answers.BROKEN) or (
                    not self._is_known and isinstance(exc, httpx.ConnectError)
                )
                if is_last or is_hopeless:
                    raise UnreachableError(where or self.url, answers.reason(exc)) from exc
                pause_s, why = answers.pause_s(tried), answers.reason(exc)
            else:
                self._is_known = self._is_known or where is None
                if is_last or answer.status_code not in answers.BUSY:
                    return answer
                pause_s = max(answers.retry_after_s(answer) or 0, answers.pause_s(tried))
                why = answers.fault_of(answer).message
            pause_s = min(pause_s, LONGEST_PAUSE_S)
            if pause_s >= TOLD_S:
                log.warning(
                    "%s: %s; asking again in %.0f s (%d of %d)", where or self.url, why, pause_s, tried, tries - 1
                )
            time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")
