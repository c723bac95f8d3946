"""Requests of the native API become submissions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from api.dialects.oxen import envelope
from api.dialects.oxen.parameters import edit_of, recordable
from api.http import bodies, pictures
from api.http.access import own_url
from api.resources import Resources
from api.service import checks, route
from api.service.read import Reader, ResultView
from storage.contracts import access, catalog, edits, errors, parameters, results, submissions


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The most seconds that a request may ask to wait and to run."""

    queue_ttl_s: float
    execution_limit_s: float


async def of_request(
    request: Request,
    body: bodies.Body,
    resources: Resources,
    caller: access.Caller,
    *,
    idempotency_key: str | None = None,
    late: bool = False,
) -> submissions.Submission:
    """`submission_of` for a caller of this service, within its bounds."""
    settings = resources.settings
    return await submission_of(
        body,
        tenant=caller.tenant,
        known=resources.catalog,
        bounds=Bounds(queue_ttl_s=settings.queue_ttl_s, execution_limit_s=settings.execution_limit_s),
        reader=resources.reader,
        idempotency_key=idempotency_key,
        base_url=own_url(request, resources),
        late=late,
    )


async def submission_of(
    body: bodies.Body,
    *,
    tenant: str,
    known: catalog.Catalog,
    bounds: Bounds,
    reader: Reader,
    idempotency_key: str | None,
    base_url: str,
    late: bool,
) -> submissions.Submission:
    """Check a body and say what it asks for.

    `base_url` is how the caller reached this service. `late` turns a bad model parameter into generations recorded as failed,
    as Oxen's queue does.

    Raises `errors.InvalidInputError`, `errors.ModelNotFoundError` and `errors.NotFoundError` for a parent that is not there.
    """
    fields = {name: value for name, value in body.fields.items() if value is not None}
    name = _model_of(fields, known)
    model = known.models[name]
    own = {field: value for field, value in fields.items() if field not in envelope.NAMES}
    if body.textual:
        own = {field: parameters.typed(value, model.parameters.get(field)) for field, value in own.items()}
        fields = {**fields, **_lists(fields)}
    if not late:
        parameters.refuse_unknown(fields, {*model.parameters, *envelope.NAMES})
    envelope.response_format(fields)
    parent = envelope.string(fields, "parent_generation_id") if "parent_generation_id" in fields else None
    first = [await _result_of(parent, tenant, reader)] if parent else []
    refused = None
    try:
        references = [*first, *await pictures.of_field(body, "input_image")]
        masks = await pictures.of_field(body, "mask_image")
        checks.pictures(name, model, len(references), len(masks), checks.NATIVE)
    except errors.InvalidInputError as exc:
        if not late:
            raise
        refused, references, masks = submissions.Refusal(code=exc.code, message=exc.message), first, []
    try:
        edit = edit_of(name, model, own, references=len(references), masked=bool(masks))
    except errors.InvalidInputError as exc:
        if not late:
            raise
        refused = refused or submissions.Refusal(code=exc.code, message=exc.message)
        own = recordable(model, own)
        prompt = own.get("prompt")
        plain = {"prompt": prompt if isinstance(prompt, str) and prompt.strip() else "-"}
        edit = edit_of(name, model, plain, references=len(references), masked=bool(masks))
    textual = body.textual
    placed = {"references": tuple(references), "mask": masks[0] if masks else None, "parent": parent}
    return submissions.Submission(
        edit=edit.model_copy(update=placed),
        seed=None if refused else own.get("seed"),
        count=envelope.count(fields, textual=textual),
        queue_ttl_s=envelope.seconds(fields, "queue_ttl", bounds.queue_ttl_s, textual=textual),
        execution_limit_s=envelope.seconds(fields, "execution_timeout", bounds.execution_limit_s, textual=textual),
        deadline_s=envelope.seconds(fields, "deadline", bounds.queue_ttl_s + bounds.execution_limit_s, textual=textual),
        kept_s=results.NO_STORE_S if envelope.flag(fields, "no_store", textual=textual) else None,
        priority=envelope.priority(fields),
        pins=route.pins_of(fields),
        webhook=envelope.webhook(fields, base_url),
        group=envelope.string(fields, "group") if "group" in fields else None,
        namespace=envelope.string(fields, "target_namespace") if "target_namespace" in fields else None,
        idempotency_key=idempotency_key,
        refused=refused,
        echo=_echo(fields, own, envelope.metadata(fields, textual=textual)),
    )


def replay_of(view: ResultView, *, known: catalog.Catalog, idempotency_key: str | None) -> submissions.Submission:
    """The same again, without its webhook and its delivery.

    Pictures that were stored are copied, for each generation deletes its own.

    Raises `errors.InvalidInputError` for what was refused then, and `errors.ModelNotFoundError`.
    """
    submission = view.generation.submission
    known.model(submission.edit.model)
    if view.generation.error_code == errors.InvalidInputError.code:
        raise errors.InvalidInputError("What was refused cannot be replayed", field="generation_id")

    def again(picture: edits.Picture) -> edits.Picture:
        return edits.KeptPicture(key=picture.key) if isinstance(picture, edits.StoredPicture) else picture

    changes = {
        "edit": submission.edit.model_copy(update={"deliver": None}).with_pictures(again),
        "seed": submission.edit.seed,
        "count": 1,
        "group": view.generation.group,
        "kept_s": view.generation.times.kept_s,
        "webhook": None,
        "idempotency_key": idempotency_key,
    }
    return submission.model_copy(update=changes)


def _model_of(fields: Mapping[str, Any], known: catalog.Catalog) -> str:
    name = known.name_of(envelope.string(fields, "model"))
    if "model_version" in fields:
        name = known.version(name, envelope.string(fields, "model_version"))
    if "profile" in fields:
        name = known.profiled(name, envelope.string(fields, "profile"))
    return name


def no_parent(id_: str) -> errors.NotFoundError:
    """There is no generation of this id to build on."""
    message = f"parent_generation_id: there is no generation {parameters.shown(id_)}"
    return errors.NotFoundError(message, field="parent_generation_id")


async def _result_of(id_: str, tenant: str, reader: Reader) -> edits.Picture:
    try:
        parent = await reader.one(id_, tenant)
    except errors.NotFoundError:
        raise no_parent(id_) from None
    if parent.result is None:
        status = parent.generation.status
        message = f"parent_generation_id: that generation is {status}; only a succeeded one has a result"
        raise errors.InvalidInputError(message, field="parent_generation_id")
    return edits.KeptPicture(key=parent.result.key)


def _lists(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that may be lists, as a form has them: names with commas between."""
    texts = {name: fields[name] for name in ("gpu_type",) if isinstance(fields.get(name), str)}
    return {name: text.split(",") for name, text in texts.items() if "," in text}


def _echo(fields: Mapping[str, Any], own: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters to show again when asked; pictures sent along are shown as URLs instead."""
    echo = {name: value for name, value in own.items() if name != "prompt"}
    if "custom_id" in fields:
        envelope.string(fields, "custom_id")
    echo |= {name: fields[name] for name in envelope.SHOWN if name in fields}
    if metadata is not None:
        echo["metadata"] = metadata
    for name in envelope.PICTURES:
        image = fields.get(name)
        urls = image if isinstance(image, list) else [image]
        if all(isinstance(url, str) and not url.startswith("data:") for url in urls):
            echo[name] = image
    return submissions.bounded(echo)
