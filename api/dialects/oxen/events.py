"""The route of the event stream; how it is framed is in `stream`."""

import re
from typing import Annotated

from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse
from starlette.responses import Response

from api.dialects.oxen import contract, stream
from api.http.access import ResourcesDep, WatchingCaller
from storage.contracts import errors, events, parameters

_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

router = APIRouter(tags=["oxen"], responses=contract.PROBLEMS)


@router.get("/api/events", response_class=EventSourceResponse, responses=contract.STREAMED)
async def stream_events(
    resources: ResourcesDep,
    caller: WatchingCaller,
    generation_id: str | None = None,
    types: Annotated[str | None, Query(description="Event types, separated by commas")] = None,
    since: Annotated[str | None, Query(description="A cursor to continue after")] = None,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """Server-sent events of this key's generations, or of those that a browser token (`?token=`) is for."""
    if generation_id is not None and not _ID.fullmatch(generation_id):
        message = f"generation_id must be one that an enqueue answered with; got {parameters.shown(generation_id)}"
        raise errors.InvalidInputError(message, field="generation_id")
    cursor = last_event_id or since
    if cursor:
        try:
            events.order(cursor)
        except ValueError as exc:
            raise errors.InvalidInputError(f"since: {exc}", field="since") from None
    wanted = None
    if types:
        try:
            wanted = frozenset(events.EventType(name.strip()) for name in types.split(","))
        except ValueError:
            known = ", ".join(events.EventType)
            raise errors.InvalidInputError(f"types must be of {known}", field="types") from None
    resources.streams.check(caller.tenant)
    return stream.Stream(
        tenant=caller.tenant,
        is_allowed=lambda: resources.keys.still(caller),
        since=cursor or None,
        replay_s=resources.settings.replay_s,
        wants=stream.Filter(generation_id=generation_id, types=wanted),
        log=resources.event_log,
        hub=resources.hub,
        sign=resources.objects.signed_url,
        open_streams=resources.streams,
    ).response()
