"""Before the pipeline: fetch, check, decode and fit the inputs of a claim."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

from storage.contracts import catalog, edits, errors
from storage.contracts.geometry import Geometry, Size, planned
from workers import pictures
from workers.decoding.pool import Decoded
from workers.leases import Lease
from workers.pipelines import base

MASK_TOLERANCE = 0.02
"""How far, as a logarithm, a mask's aspect ratio may be from its picture's."""


class Filters(Protocol):
    """Refuses what may not be asked, shown or made."""

    @property
    def judge_pictures(self) -> bool:
        """Whether pictures are looked at."""
        ...

    def check_prompt(self, prompt: str) -> None:
        """Raises `errors.ContentFilteredError`."""
        ...

    def check_picture(self, picture: Image.Image, stage: Literal["input", "output"]) -> None:
        """Raises `errors.ContentFilteredError`."""
        ...


class Decoder(Protocol):
    """Turns files into pixels."""

    def decode(self, data: bytes, field: str) -> Decoded:
        """A picture. Raises `errors.InvalidInputError` naming `field`."""
        ...

    def decode_mask(self, data: bytes, field: str, channel: edits.MaskChannel) -> Decoded:
        """A mask. Raises `errors.InvalidInputError` naming `field`."""
        ...


class InputStore(Protocol):
    """Where stored inputs are."""

    def get(self, key: str) -> bytes:
        """Fetch. Raises `errors.ObjectsUnavailableError`."""
        ...


Encode = Callable[[Lease], Mapping[str, bytes] | None]
"""What another worker made of a claim's prompts; None: it did not, in time."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A claim whose inputs are fetched, decoded and fitted."""

    lease: Lease
    job: base.Job
    geometry: Geometry


class Preparing:
    """Prepares inputs; `fetch` gets what is behind a URL, and is told the field's name.

    `encode` has prompts encoded by another worker, where `encodes_elsewhere` says so of the model.
    """

    def __init__(
        self,
        *,
        known: catalog.Catalog,
        objects: InputStore,
        filters: Filters,
        fetch: Callable[[str, str], bytes],
        decoder: Decoder,
        encode: Encode = lambda lease: None,
        encodes_elsewhere: Callable[[str], bool] = lambda model: False,
    ) -> None:
        self._catalog = known
        self._objects = objects
        self._filters = filters
        self._fetch = fetch
        self._decoder = decoder
        self._encode = encode
        self._encodes_elsewhere = encodes_elsewhere

    def prepare(self, lease: Lease) -> Prepared:
        """Fetch, check, decode and fit the inputs. Raises `errors.DarkroomError`."""
        edit = lease.claim.edit
        model = self._catalog.model(edit.model)
        if edit.filtered:
            self._filters.check_prompt(edit.prompt)
        decoded = [self._decoder.decode(self._bytes(reference), "input_image") for reference in edit.references]
        images, originals = [one.image for one in decoded], [one.original for one in decoded]
        for image in images if edit.filtered else ():
            self._filters.check_picture(image, "input")
        # A mask is for the first; the others are what the model looks at.
        apart = 0 if edit.mask is None else 1
        if model.stitches and len(images) > apart + 1:
            whole, size = _side_by_side(model, images[apart:], originals[apart:])
            images, originals = [*images[:apart], whole], [*originals[:apart], size]
        geometry = planned(model.frame, edit.canvas, originals, decoded[0].original if decoded else None)
        if len(decoded) > len(images):
            together = f"{len(decoded) - apart} pictures side by side as one"
            geometry = dataclasses.replace(geometry, note=f"{together}; {geometry.note}")
        sizes = geometry.references
        mask = None
        if edit.mask is not None:
            mask = self._mask(edit.mask, edit.mask_channel, originals[0], geometry)
            # What is kept must lie where it lay: picture and mask have the result's size.
            sizes = (geometry.render, *geometry.references[1:])
        lease.check()
        fitted = [
            pictures.fitted(image, size, in_shape=is_cut)
            for image, size, is_cut in zip(images, sizes, geometry.cut, strict=True)
        ]
        job = base.Job.of(edit, references=fitted, mask=mask, size=geometry.render)
        if self._encodes_elsewhere(edit.model) and (encoded := self._encode(lease)):
            job = dataclasses.replace(job, encoded=encoded)
        return Prepared(lease=lease, job=job, geometry=geometry)

    def _mask(
        self, reference: edits.Picture, channel: edits.MaskChannel, original: Size, geometry: Geometry
    ) -> Image.Image:
        mask = self._decoder.decode_mask(self._bytes(reference, "mask_image"), "mask_image", channel)
        if abs(math.log(mask.original.ratio / original.ratio)) > MASK_TOLERANCE:
            message = f"mask_image must have the shape of input_image, {original}; got {mask.original}"
            raise errors.InvalidInputError(message, field="mask_image")
        return pictures.fitted(mask.image, geometry.render, in_shape=geometry.cut[0])

    def _bytes(self, picture: edits.Picture, field: str = "input_image") -> bytes:
        if isinstance(picture, edits.StoredPicture):
            return self._objects.get(picture.key)
        if isinstance(picture, edits.RemotePicture):
            return self._fetch(picture.url, field)
        raise errors.InternalError(f"{field} was never stored")


def _side_by_side(
    model: catalog.Model, images: Sequence[Image.Image], originals: Sequence[Size]
) -> tuple[Image.Image, Size]:
    """Several references as one, for a model that reads one. Raises `errors.InvalidInputError` for one too long."""
    ratio = sum(original.ratio for original in originals)
    model.frame.check_reference(Size(width=max(1, round(1000 * ratio)), height=1000))
    whole = pictures.stitched(images)
    return whole, Size(width=whole.width, height=whole.height)
