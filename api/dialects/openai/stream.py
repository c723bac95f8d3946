"""Partial pictures as they come, then each finished one."""

import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from api.dialects.openai import answers
from api.dialects.openai.asking import Input, Kind
from api.http import streams
from api.resources import Resources
from api.service.read import ResultView
from storage.contracts import errors, events

log = logging.getLogger(__name__)

CANCEL_S = 5.0
"""For cancelling what nobody waits for any more."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The generations of one request. A client that hangs up cancels what is unfinished, unless `keep`."""

    kind: Kind
    ids: Sequence[str]
    sent: Input
    resources: Resources
    tenant: str
    keep: bool

    async def frames(self, stopping: anyio.Event) -> AsyncIterator[bytes]:
        """Events as they go over the wire."""
        resources = self.resources
        unfinished = set(self.ids)
        shown = dict.fromkeys(self.ids, 0)
        with resources.streams.counted(self.tenant):
            try:
                happenings = resources.waiter.happenings(unfinished, self.tenant, stopping=stopping)
                async with contextlib.aclosing(happenings):
                    async for event in happenings:
                        if event is not None and event.type not in events.TERMINAL:
                            index = shown[event.generation_id]
                            if self._is_next_partial(event, index):
                                yield self._partial(event.fields["preview"], index)
                                shown[event.generation_id] += 1
                            continue
                        for view in await self._over(unfinished):
                            unfinished.discard(view.id)
                            yield await self._completed(view)
                        if not unfinished:
                            return
            finally:
                # With a key somebody may come back for it. Whatever ends this, each is cancelled.
                with anyio.move_on_after(CANCEL_S, shield=True):
                    await resources.waiter.cancel(() if self.keep else tuple(unfinished), self.tenant)

    def _is_next_partial(self, event: events.Event, index: int) -> bool:
        """Evenly over the steps: the first early, the last well before the end."""
        most = self.sent.partial_images
        step, steps = (int(event.fields.get(name, 0)) for name in ("step", "steps"))
        return "preview" in event.fields and index < most and step * (most + 1) >= steps * (index + 1)

    async def _over(self, unfinished: Iterable[str]) -> list[ResultView]:
        """Those of them that are over. A store that does not answer is asked again later."""
        try:
            views = [await self.resources.reader.one(id_, self.tenant) for id_ in sorted(unfinished)]
        except errors.TransientError as exc:
            log.warning("a stream looks again later: %s", exc)
            return []
        return [view for view in views if view.is_over]

    def _partial(self, preview: str, index: int) -> bytes:
        head, _, data = preview.partition(",")
        return _event(
            f"{self.kind}.partial_image",
            {
                "b64_json": data,
                "partial_image_index": index,
                "created_at": int(time.time()),
                "output_format": head.removeprefix("data:image/").partition(";")[0],
                "quality": self.sent.quality,
                "background": "opaque",
                "size": self.sent.size,
            },
        )

    async def _completed(self, view: ResultView) -> bytes:
        try:
            datum = await answers.datum(view, "b64_json", "")
        except errors.DarkroomError as exc:
            return _event("error", {"error": answers.body_of(exc)})
        created = {"created_at": view.generation.times.created_ms // 1000}
        usage = {"usage": answers.usage([view])}
        return _event(f"{self.kind}.completed", {**datum, **created, **answers.about(view, self.sent), **usage})


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return streams.frame(json.dumps({"type": name, **data}), name=name)
