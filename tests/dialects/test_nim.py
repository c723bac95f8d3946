"""NVIDIA NIM's container routes: keyless, strict, blocking."""

import base64
from typing import Any

import pytest
import requests

from api.dialects import base, nim
from storage.contracts import errors
from storage.settings import StoreSettings
from tests.conftest import Tenant
from tests.dialects.conftest import PROMPT, pixels


def infer(nina: Tenant, **body: object) -> requests.Response:
    return requests.post(f"{nina.url}/v1/infer", json=body, timeout=60)


def artifact(answer: requests.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    (one,) = answer.json()["artifacts"]
    return dict(one)


def test_an_edit_without_a_key_belongs_to_the_tenant_that_is_set(nina: Tenant, photograph: str) -> None:
    found = artifact(infer(nina, prompt=PROMPT, image=photograph, steps=20, seed=7))
    assert (found["finishReason"], found["seed"]) == ("SUCCESS", 7)
    data = base64.b64decode(found["base64"])
    assert data.startswith(b"\xff\xd8"), "JPEG"
    assert pixels(data)[0] == (128, 128)
    seeds = [one["seed"] for one in nina.get("/api/ai/queue?status=succeeded").json()["generations"]]
    assert 7 in seeds


def test_a_seed_of_zero_is_random(nina: Tenant, tiny: str) -> None:
    seeds = [artifact(infer(nina, prompt=PROMPT, image=tiny, steps=20, seed=0))["seed"] for _ in range(2)]
    assert seeds[0] != seeds[1]


@pytest.mark.parametrize(
    ("sent", "field"), [({"cfg_scale": 0, "steps": 4}, None), ({"cfg_scale": 1}, "cfg_scale"), ({"steps": 5}, "steps")]
)
def test_a_klein_takes_what_its_container_takes(sent: dict[str, object], field: str | None) -> None:
    model = StoreSettings().read_catalog().model("flux-2-klein-4b")
    taken = base.of_family(nim.FAMILIES, model)
    if field is None:
        assert taken.check({"prompt": "x", **sent}).steps == 4
        return
    with pytest.raises(errors.InvalidInputError) as refused:
        taken.check({"prompt": "x", **sent})
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"aspect_ratio": "21:9"}, (192, 80)),
        ({"width": 672, "height": 1568}, (672, 1568)),
        ({"width": 1568}, (1568, 1024)),
        ({"aspect_ratio": "1:1", "width": 672}, (128, 128)),
    ],
)
def test_ratios_and_sides(nina: Tenant, tiny: str, asked: dict[str, object], size: tuple[int, int]) -> None:
    data = base64.b64decode(artifact(infer(nina, prompt=PROMPT, image=tiny, steps=20, **asked))["base64"])
    assert pixels(data)[0] == size


def test_a_filtered_picture_is_an_answer(nina: Tenant, tiny: str) -> None:
    found = artifact(infer(nina, prompt="child porn", image=tiny))
    assert (found["finishReason"], found["base64"]) == ("CONTENT_FILTERED", "")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"extra": 1}, "extra is not a known parameter"),
        ({"steps": 19}, "steps must be an integer between 20 and 50; got 19"),
        ({"cfg_scale": 1}, "cfg_scale must be a finite number above 1 and at most 9; got 1"),
        ({"width": 1000}, "width must be one of 672"),
        ({"samples": 2}, "samples must be an integer between 1 and 1; got 2"),
        ({"image": "data:image/png;example_id,0"}, "Expected: base64, got: example_id"),
        ({"image": "https://example.com/a.png"}, "Image has been provided in the invalid form"),
        ({"aspect_ratio": "16:9"}, "aspect_ratio must be one of match_input_image, 9:21"),
        ({"disable_safety_checker": True}, "disable_safety_checker: the operator"),
    ],
)
def test_what_does_not_fit_the_schema_is_unprocessable(
    nina: Tenant, tiny: str, body: dict[str, object], said: str
) -> None:
    refused = infer(nina, **{"prompt": PROMPT, "image": tiny, **body})
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(said)


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer nobody"}, {"x-key": "nobody"}, {"api-key": "nobody"}])
def test_a_wrong_key_is_not_taken_for_none(nina: Tenant, tiny: str, headers: dict[str, str]) -> None:
    refused = requests.post(f"{nina.url}/v1/infer", json={"prompt": PROMPT, "image": tiny}, headers=headers, timeout=10)
    assert refused.status_code == 401


def test_other_routes_are_not_open_without_a_key(nina: Tenant) -> None:
    assert requests.get(f"{nina.url}/api/ai/queue", timeout=10).status_code == 401


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("health/live", {"object", "message", "status"}),
        ("health/ready", {"object", "message", "status"}),
        (
            "metadata",
            {"assetInfo", "licenseInfo", "modelInfo", "repository_override", "version", "selectedModelProfileId"},
        ),
        ("manifest", {"manifest_file", "repository_override"}),
        ("license", {"name", "path", "sha", "size", "url", "type", "content"}),
    ],
)
def test_the_containers_own_routes(nina: Tenant, path: str, keys: set[str]) -> None:
    answer = requests.get(f"{nina.url}/v1/{path}", timeout=10)
    assert (answer.status_code, set(answer.json())) == (200, keys)


def test_metrics_are_prometheus_text(nina: Tenant) -> None:
    text = requests.get(f"{nina.url}/v1/metrics", timeout=10).text
    assert "process_resident_memory_bytes" in text
    assert "python_gc_objects_collected_total" in text


def test_a_family_has_its_containers_sides() -> None:
    known = StoreSettings().read_catalog()
    kontext, klein = (
        base.of_family(nim.FAMILIES, known.model(name)) for name in ("flux-kontext-dev", "flux-2-klein-4b")
    )
    assert {672, 1568} <= set(kontext.SIDES)
    assert 768 not in kontext.SIDES
    assert (klein.SIDES[0], klein.SIDES[-1], 1280 in klein.SIDES, 672 in klein.SIDES) == (768, 1344, True, False)
