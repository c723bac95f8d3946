"""What every dialect shares: what one is, how it submits and waits, and pieces that several wires spell alike."""

import re
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.http.access import still
from api.http.hangups import HungUpError, unless_hung_up
from api.http.middleware import release_body
from api.http.pictures import MAX_URL
from api.http.remarks import IGNORED, MODEL, rate, remark
from api.resources import Resources
from api.service.accepted import Accepted
from api.service.checks import Names
from api.service.read import ResultView
from api.webhooks.delivery import BatchWording, Wording
from storage.contracts import access, catalog, edits, errors, parameters, submissions
from storage.contracts.geometry import Size
from storage.contracts.values import is_web_address

T = TypeVar("T")

UPSAMPLE_TEMPERATURE = 0.15
"""How freely a prompt is written anew in dialects that only say that it is to be; what diffusers takes."""

NEGATIVE_GUIDANCE = 2.5
"""True guidance scale of a negative prompt in dialects that name none: every step then runs twice."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What the service needs to know of one.

    `router` has its routes, tagged with its name; `problem` answers an error in its words. `aim` says in three lines how its
    client is pointed here, with `{url}` for our address. `wording` words its webhooks, `batch_wording` those of batches.
    `describe` adds what its clients read to the record at `/v1/models/…`, which several dialects share: it is given what the
    model is called there, its name, the model and our address.
    """

    name: str
    router: APIRouter
    problem: Callable[[Request, errors.DarkroomError], Response]
    aim: tuple[str, ...]
    wording: Wording | None = None
    batch_wording: BatchWording | None = None
    describe: Callable[[str, str, catalog.Model, str], Mapping[str, Any]] | None = None


def of_family(table: Mapping[str, T], model: catalog.Model) -> T:
    """What a dialect does for a model of this family; `*` is the entry for those it does not know."""
    return table.get(model.family, table["*"])


async def submitted(
    request: Request,
    resources: Resources,
    submission: submissions.Submission,
    caller: access.Caller,
    *,
    names: Names,
    named: str | None = None,
) -> Accepted:
    """Have a submission accepted. Raises as `Submitter.submit`.

    The answer's headers name what of it changes nothing, its model where that is not the one that was `named`, and how its key
    stands against its rate.
    """
    if named is not None and not submission.edit.references:
        await _check_served(submission.edit.model, named, resources, names)
    accepted = await resources.submitter.submit(submission, caller, names=names)
    release_body(request)
    remark(request, IGNORED, submission.ignored)
    if named not in (None, submission.edit.model):
        remark(request, MODEL, [submission.edit.model])
    if (pace := accepted.pace) is not None:
        for header, value in rate(pace.per_minute, pace.left, pace.full_s).items():
            remark(request, header, [value])
    return accepted


async def _check_served(name: str, named: str, resources: Resources, names: Names) -> None:
    """Whether somebody serves the model that takes a named one's place where there is no picture."""
    if name == named or not resources.catalog.has(named):
        return
    if not any(name in worker["models"] for worker in (await resources.forecasts.fleet()).values()):
        message = (
            f"{names.image} is required: {name}, which makes pictures from text alone, is not served here just now"
        )
        raise errors.InvalidInputError(message, field=names.image)


def seed_of(seed: int | None) -> int | None:
    """A seed of up to 64 bits as one of 32: its lower half. None stays."""
    return None if seed is None else seed & edits.MAX_SEED


def guidance_of(model: catalog.Model, named: float | None) -> float:
    """A guidance scale for dialects that pass over it where the model takes none."""
    return model.guidance(named if "guidance" in model.parameters else None)


def negative_of(model: catalog.Model, named: str) -> tuple[str | None, float]:
    """A negative prompt and its guidance scale, for dialects that pass over it where the model takes none; blank is none."""
    negative = named.strip() or None if "negative_prompt" in model.parameters else None
    return negative, NEGATIVE_GUIDANCE if negative else 1.0


def not_taken(model: catalog.Model, sent: Collection[str], *, guidance: Sequence[str]) -> tuple[str, ...]:
    """Of what was sent the fields that this model does not take, in dialects that pass over these; `guidance`: its names."""
    none = () if "guidance" in model.parameters else tuple(guidance)
    negative = () if "negative_prompt" in model.parameters else ("negative_prompt",)
    return tuple(name for name in (*none, *negative) if name in sent)


def one_mask(masks: Sequence[edits.Picture], field: str) -> edits.Picture | None:
    """The mask of a field that may name one. Raises `errors.InvalidInputError`."""
    if len(masks) > 1:
        raise errors.InvalidInputError(f"{field}: at most one; got {len(masks)}", field=field)
    return masks[0] if masks else None


async def finished(
    request: Request, resources: Resources, accepted: Accepted, tenant: str, *, keep: bool = False
) -> list[ResultView]:
    """Every generation of a blocking request once it is over. A client that hangs up cancels them, unless `keep`.

    So does a process that stops. Raises `HungUpError`, `errors.RestartingError`, and `errors.TimedOutError` after the settings'
    `blocking_limit_s`.
    """
    waiting = resources.waiter.until_all_over(accepted.ids, tenant)
    try:
        return await _unless_hung_up(request, resources, waiting, accepted.ids, tenant, keep=keep)
    except errors.RestartingError:
        # Nobody was told their ids.
        if not keep:
            await resources.waiter.cancel(accepted.ids, tenant)
        raise


async def waited(
    request: Request, resources: Resources, accepted: Accepted, *, seconds: float, keep: bool = False
) -> list[ResultView]:
    """The generations of a request once they are over or so many seconds are.

    Should the store stop answering meanwhile, or this process be told to stop, they are as they were accepted. A client that
    hangs up before cancels them, unless `keep`. Raises `HungUpError`.
    """
    tenant, deadline = accepted.tenant, time.monotonic() + seconds

    async def over() -> list[ResultView]:
        try:
            return [await resources.waiter.until_over(id_, tenant, deadline=deadline) for id_ in accepted.ids]
        except errors.TransientError:
            return await resources.reader.accepted(accepted)

    try:
        return await _unless_hung_up(request, resources, over(), accepted.ids, tenant, keep=keep)
    except errors.RestartingError:
        return await resources.reader.accepted(accepted)


async def _unless_hung_up(
    request: Request,
    resources: Resources,
    waiting: Coroutine[Any, Any, T],
    ids: Sequence[str],
    tenant: str,
    *,
    keep: bool,
) -> T:
    try:
        over = await unless_hung_up(request, waiting)
    except HungUpError:
        if not keep:
            await resources.waiter.cancel(ids, tenant)
        raise
    await still(request, resources)
    return over


def is_about(name: str, model: catalog.Model, words: Sequence[str]) -> bool:
    """Whether these words, in lower case, are in a model's names or summary."""
    text = " ".join((name, *model.aliases, model.display_name, model.summary)).lower()
    return all(word in text for word in words)


def webhook_of(
    url: Any,
    field: str,
    dialect: str,
    *,
    base: str,
    moments: tuple[submissions.Moment, ...] = ("completed",),
    secret: str | None = None,
    note: str = "",
) -> submissions.Webhook | None:
    """A webhook that is asked for, if it is. Raises `errors.InvalidInputError`."""
    if url in (None, ""):
        return None
    if not isinstance(url, str) or len(url) > MAX_URL or not is_web_address(url):
        raise errors.InvalidInputError(f"{field} must be an http(s) URL of at most {MAX_URL} characters", field=field)
    return submissions.Webhook(url=url, dialect=dialect, moments=moments, base=base, secret=secret, note=note)


def object_of(fields: Mapping[str, Any], field: str) -> dict[str, Any]:
    """A field that is an object, or nothing. Raises `errors.InvalidInputError`."""
    value = fields.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.InvalidInputError(f"{field} must be an object", field=field)
    return value


def ratio_of(text: str) -> float:
    """`16:9` as width over height. Raises `ValueError`."""
    width, _, height = text.partition(":")
    return int(width) / int(height)


def size_of(text: str, name: str, pattern: str = r"([1-9][0-9]{1,3})\s*[x*×]\s*([1-9][0-9]{1,3})") -> Size:
    """`1024*1024` as a size. Raises `errors.InvalidInputError`."""
    sides = re.fullmatch(pattern, text.strip())
    if not sides:
        raise errors.InvalidInputError(
            f"{name} must be a width and a height such as 1024x1024; got {parameters.shown(text)}", field=name
        )
    return Size(width=int(sides[1]), height=int(sides[2]))


def both_sides(width: int | None, height: int | None) -> Size | None:
    """A size, when both sides are given; None when neither is. Raises `errors.InvalidInputError`."""
    if not width and not height:
        return None
    if not width or not height:
        missing = "height" if not height else "width"
        raise errors.InvalidInputError(f"width and height belong together; {missing} is missing", field=missing)
    return Size(width=width, height=height)
