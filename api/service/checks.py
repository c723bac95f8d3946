"""Whether a model takes what a submission asks for.

Numbers keep the ranges that their dialect documents.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from storage.contracts import catalog, edits, errors, submissions

NOT_UPSAMPLED = "{} runs prompts as they are; its operator can offer more (docs/models.md)"
NOT_FETCHED = (
    "this address may not be fetched: it must be public, on port 80 or 443 and without a user's name,"
    " or be one that the operator allows (DARKROOM_FETCH_ALLOWED)"
)
NOT_CALLED = NOT_FETCHED.replace("fetched", "called")
NOT_ALLOWED = "the operator of this service does not allow this key to switch the filters off"


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a dialect calls its fields, for errors. `size` None: the width or the height."""

    image: str = "image"
    mask: str = "mask"
    guidance: str = "guidance"
    upsampling: str = catalog.UPSAMPLING
    size: str | None = None
    filters: str = "disable_safety_checker"
    webhook: str = "webhook_url"

    def translated(self, text: str) -> str:
        """A sentence that calls fields as the native API does, as workers' are, in these names."""
        return _NATIVE_NAMES.sub(lambda name: self.image if name[0] == NATIVE.image else self.mask, text)


NATIVE = Names(image="input_image", mask="mask_image")
_NATIVE_NAMES = re.compile(rf"\b(?:{NATIVE.image}|{NATIVE.mask})\b")


def check(
    submission: submissions.Submission,
    known: catalog.Catalog,
    *,
    names: Names,
    may_be_unfiltered: bool,
) -> None:
    """Check a submission, whose caller may switch filters off or not. Raises `errors.InvalidInputError`."""
    edit = submission.edit
    model = known.models[edit.model]
    if submission.refused is None:
        pictures(edit.model, model, len(edit.references), int(edit.mask is not None), names)
    if edit.guidance != 1 and "guidance" not in model.parameters:
        raise errors.InvalidInputError(f"{names.guidance}: {edit.model} takes none", field=names.guidance)
    if edit.negative_prompt and "negative_prompt" not in model.parameters:
        raise errors.InvalidInputError(f"negative_prompt: {edit.model} takes none", field="negative_prompt")
    if edit.upsampled and not model.upsamples:
        message = f"{names.upsampling}: {NOT_UPSAMPLED.format(edit.model)}"
        raise errors.InvalidInputError(message, field=names.upsampling)
    if edit.canvas.size is not None:
        try:
            model.frame.check(edit.canvas.size)
        except errors.InvalidInputError as exc:
            message = f"{names.size}: {exc.message}" if names.size else exc.message
            raise errors.InvalidInputError(message, field=names.size or exc.field) from None
    if not edit.filtered and not may_be_unfiltered:
        raise errors.InvalidInputError(f"{names.filters}: {NOT_ALLOWED}", field=names.filters)
    idempotency_key(submission.idempotency_key)


def addresses(edit: edits.Edit, refuses: Callable[[str], bool], names: Names) -> None:
    """Whether pictures may be fetched from where they are, as far as their URLs say. Raises `errors.InvalidInputError`."""
    named = [(names.image, picture) for picture in edit.references] + [(names.mask, edit.mask)]
    for field, picture in named:
        if isinstance(picture, edits.RemotePicture) and refuses(picture.url):
            raise errors.InvalidInputError(f"{field}: {NOT_FETCHED}", field=field)


def called(url: str, field: str, refuses: Callable[[str], bool]) -> None:
    """Whether a webhook may be called, as far as its URL says. Raises `errors.InvalidInputError`."""
    if refuses(url):
        raise errors.InvalidInputError(f"{field}: {NOT_CALLED}", field=field)


def idempotency_key(key: str | None) -> None:
    """Whether a key is of a length that is taken. Raises `errors.InvalidInputError`."""
    if key is not None and not 1 <= len(key) <= submissions.MAX_IDEMPOTENCY_KEY:
        message = f"Idempotency-Key may have 1 to {submissions.MAX_IDEMPOTENCY_KEY} characters"
        raise errors.InvalidInputError(message, field="Idempotency-Key")


def pictures(name: str, model: catalog.Model, references: int, masks: int, names: Names) -> None:
    """Whether a model takes so many of them. Raises `errors.InvalidInputError`."""
    image, mask = names.image, names.mask
    if references < model.min_references:
        raise errors.InvalidInputError(f"{image} is required: a URL, a data URI or an uploaded file", field=image)
    if references > model.max_references:
        message = f"{image}: {name} takes at most {model.max_references}; got {references}"
        raise errors.InvalidInputError(message, field=image)
    if masks and not model.takes_mask:
        raise errors.InvalidInputError(f"{mask}: {name} takes none", field=mask)
    if masks > 1:
        raise errors.InvalidInputError(f"{mask}: at most one; got {masks}", field=mask)
    if masks and not references:
        raise errors.InvalidInputError(f"{mask} needs {image}: the picture to be painted in", field=mask)
