"""LoRAs that requests name are versions that the catalog offers, and nothing else."""

import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from api.dialects import base, loras
from api.dialects.fal import asking as fal
from api.dialects.replicate import asking as replicate
from api.http import bodies, remarks
from api.service.accepted import Accepted
from storage.contracts import catalog, catalog_files, edits, errors, submissions

OFFERED = """
[models.kontext-watercolour]
version_of = "flux-kontext-dev"
version = "watercolour"
weights = { lora = "watercolour.safetensors", scalable_lora = true }
[models.kontext-watercolour.parameters.lora_scale]
type = "number"
default = 1.0
minimum = 0
maximum = 2
description = "How strongly the LoRA works"

[models.kontext-ink]
version_of = "flux-kontext-dev"
version = "ink"
weights = { lora = "studio/ink" }
"""


@pytest.fixture(scope="module")
def known() -> catalog.Catalog:
    shipped = Path(catalog.__file__).parents[1] / "catalog.toml"
    return catalog_files.merge([tomllib.loads(shipped.read_text()), tomllib.loads(OFFERED)])


async def _by_fal(known: catalog.Catalog, wanted: Any) -> edits.Edit:
    body = bodies.Body(fields={"prompt": "x", "image_url": "https://x.example/a.png", "loras": wanted})
    submission = await fal.submission_of(
        body, fal.Input.check(body.fields), name="flux-kontext-dev", alias="flux-kontext-dev", known=known, webhook=None,
        low_priority=False, start_timeout=None, idempotency_key=None,
    )  # fmt: skip
    return submission.edit


async def _by_replicate(known: catalog.Catalog, **fields: Any) -> edits.Edit:
    body = {"input": {"prompt": "x", "input_image": "https://x.example/a.png", **fields}}
    submission = await replicate.submission_of(
        body,
        name="flux-kontext-dev",
        alias="flux-kontext-dev",
        known=known,
        own="",
        cancel_after=None,
        idempotency_key=None,
    )
    return submission.edit


@pytest.mark.parametrize(
    ("path", "scale", "model", "applied"),
    [
        ("watercolour.safetensors", 0.5, "kontext-watercolour", 0.5),
        ("watercolour.safetensors", None, "kontext-watercolour", 1.0),
        ("studio/ink", 1, "kontext-ink", None),
        ("https://huggingface.co/studio/ink", None, "kontext-ink", None),
        ("https://huggingface.co/studio/ink/resolve/main/ink.safetensors", None, "kontext-ink", None),
    ],
)
async def test_a_lora_that_is_offered_is_a_version(
    known: catalog.Catalog, path: str, scale: float | None, model: str, applied: float | None
) -> None:
    asked = {"path": path} if scale is None else {"path": path, "scale": scale}
    edit = await _by_fal(known, [asked])
    assert (edit.model, edit.lora_scale) == (model, applied)
    named = {"lora_weights": path} if scale is None else {"lora_weights": path, "lora_scale": scale}
    assert (await _by_replicate(known, **named)).model == model


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (
            [{"path": "other.safetensors"}],
            "is not offered with flux-kontext-dev; there are: watercolour.safetensors, studio/ink",
        ),
        ([{"path": "../../etc/passwd"}], "is not offered"),
        ([{"path": "https://evil.example/x.safetensors"}], "is not offered"),
        ([{"path": "studio/ink"}, {"path": "watercolour.safetensors"}], "one at a time can be used; got 2"),
        ([{"path": "studio/ink", "scale": 0.5}], "scale must be 1, as kontext-ink has it merged"),
        ([{"path": "studio/ink", "scale": 3}], "scale must be a number between 0 and 2; got 3"),
        ([{"path": "studio/ink", "scale": True}], "scale must be a number between 0 and 2; got True"),
        ([{"scale": 1}], "path must be a string"),
        ("studio/ink", "must be a list of objects"),
    ],
)
async def test_whatever_else_is_refused_by_name(known: catalog.Catalog, wanted: Any, sentence: str) -> None:
    with pytest.raises(
        errors.InvalidInputError, match="^loras: " if isinstance(wanted, list) else "^loras "
    ) as refused:
        await _by_fal(known, wanted)
    assert sentence in refused.value.message
    assert refused.value.field == "loras"


async def test_none_is_none(known: catalog.Catalog) -> None:
    for wanted in (None, []):
        assert (await _by_fal(known, wanted)).model == "flux-kontext-dev"
    assert loras.applied(known, "flux-2-dev", [], "loras") == ("flux-2-dev", None)


class Nobody:
    """A fleet without workers, and a submitter that takes everything."""

    async def fleet(self) -> dict[str, Any]:
        return {}

    async def submit(self, submission: submissions.Submission, caller: object, *, names: object) -> Accepted:
        return Accepted(tenant="t", submission=submission, ids=("1",), cursor="0-0", replayed=False, is_served=False)


async def test_a_lora_may_wait_for_its_worker_and_a_picture_from_text_may_not(known: catalog.Catalog) -> None:
    resources: Any = SimpleNamespace(catalog=known, forecasts=Nobody(), submitter=Nobody())
    caller: Any = None

    async def answered(fields: dict[str, Any]) -> dict[str, str]:
        request = Request({"type": "http", "headers": []})
        submission = await replicate.submission_of(
            {"input": {"prompt": "x", **fields}}, name="flux-kontext-dev", alias="flux-kontext-pro", known=known, own="",
            cancel_after=None, idempotency_key=None,
        )  # fmt: skip
        names, named = replicate.NAMES, "flux-kontext-dev"
        await base.submitted(request, resources, submission, caller, names=names, named=named)
        return {name.decode(): value.decode() for name, value in remarks.of(request.scope)}

    picture = {"input_image": "https://x.example/a.png"}
    assert await answered({**picture, "lora_weights": "studio/ink"}) == {"darkroom-model": "kontext-ink"}
    assert await answered(picture) == {}
    with pytest.raises(errors.InvalidInputError, match="input_image is required: flux-2-dev, which makes pictures"):
        await answered({})
