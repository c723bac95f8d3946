"""What a key's rights make of a submission: models that it may not use are refused, GPU types that it may not use left out."""

from storage.contracts import access, catalog, errors, generations, queue_names, submissions


def applied(
    submission: submissions.Submission, rights: access.Rights, known: catalog.Catalog
) -> submissions.Submission:
    """The submission, pinned to the GPU types that are allowed where not all are, with a priority that is allowed.

    A model that is allowed is so in all its versions. Raises `errors.ForbiddenError`.
    """
    _check_model(submission.edit.model, rights, known)
    submission = _with_priority(submission, rights)
    if not rights.gpu_types:
        return submission
    pins = submission.pins
    possible = pins.gpu_types or known.models[submission.edit.model].gpu_types
    # In the order that was asked for.
    allowed = tuple(one for one in possible if one in rights.gpu_types)
    if not allowed:
        raise errors.ForbiddenError(f"This API key may run edits on {', '.join(rights.gpu_types)} alone")
    return submission.model_copy(update={"pins": pins.model_copy(update={"gpu_types": allowed})})


def check_target(model: str, gpu_type: str, rights: access.Rights, known: catalog.Catalog) -> None:
    """Whether a key may start and stop a model there; `gpu_type` may be `any`. Raises `errors.ForbiddenError`."""
    _check_model(model, rights, known)
    if rights.gpu_types and gpu_type not in rights.gpu_types:
        raise errors.ForbiddenError(f"This API key may use {', '.join(rights.gpu_types)} alone: name one as gpu_type")


def check_again(generation: generations.Generation, rights: access.Rights, known: catalog.Catalog) -> None:
    """Whether a key may have run again what its tenant's other keys, too, may have submitted. Raises `errors.ForbiddenError`."""
    edit = generation.edit
    if edit.model in known.models:
        applied(generation.submission, rights, known)
    if not edit.filtered and not rights.unfiltered:
        raise errors.ForbiddenError("It ran without filters, which this API key may not switch off")
    gpu_types = {queue_names.place_of(one, edit.model).split(".")[0] for one in (generation.queue, *generation.chain)}
    others = sorted(gpu_types - set(rights.gpu_types))
    if rights.gpu_types and others:
        raise errors.ForbiddenError(
            f"It may run on {', '.join(others)}; this API key may run edits on {', '.join(rights.gpu_types)} alone"
        )


def _with_priority(submission: submissions.Submission, rights: access.Rights) -> submissions.Submission:
    allowed = [submissions.PRIORITIES[name] for name in rights.priorities] or [submission.priority]
    if submission.priority in allowed:
        return submission
    if submission.priority != submissions.PRIORITY:
        raise errors.ForbiddenError(f"This API key may submit with priority {', '.join(rights.priorities)} alone")
    # Named by nobody: what is usual.
    return submission.model_copy(update={"priority": min(allowed, key=lambda one: abs(one - submissions.PRIORITY))})


def of_token(submission: submissions.Submission, token_id: str) -> submissions.Submission:
    """The submission of a browser token's holder, who names no server of their own. Raises `errors.ForbiddenError`.

    Their idempotency keys are their own, or one could come upon what another page submitted.
    """
    if submission.webhook is not None or submission.edit.deliver is not None:
        raise errors.ForbiddenError("A browser token allows no webhook and no bucket of one's own")
    key = submission.idempotency_key
    return submission if key is None else submission.model_copy(update={"idempotency_key": f"{token_id}:{key}"})


def _check_model(model: str, rights: access.Rights, known: catalog.Catalog) -> None:
    family = {model, *known.versions(model).values()}
    named = {known.name_of(name) for name in rights.models if known.has(name)}
    if rights.models and named.isdisjoint(family):
        raise errors.ForbiddenError(f"This API key may not use {model}, but {', '.join(rights.models)}")
