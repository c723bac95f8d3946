"""Whatever a dialect refuses, it calls by a name that its caller sent: at once, and when a worker finds out later."""

from dataclasses import dataclass
from typing import Any

import pytest
import requests
from PIL import Image

from tests.conftest import Tenant, data_uri, encoded, eventually

WRONG = data_uri(b"only text")
UNREACHABLE = "http://127.0.0.1:1/picture.png"
PRIVATE = "http://10.0.0.7/picture.png"
WEBHOOKS = {
    "native": "webhook_url",
    "runpod": "webhook",
    "replicate": "webhook",
    "fal": "fal_webhook",
    "bfl": "webhook_url",
}
"""What those that have one call it."""
PICTURE = data_uri(encoded(Image.new("RGB", (96, 64), "red"), "PNG"))
MASK = data_uri(encoded(Image.new("RGBA", (32, 64), (0, 0, 0, 0)), "PNG"))
"""Of another shape than the picture."""


@dataclass(frozen=True)
class Dialect:
    """Where it takes edits, what it calls a picture and a mask, and where an answer says what was refused."""

    path: str
    image: str
    mask: str | None
    rest: dict[str, Any]
    within: str | None = None

    def body(self, **fields: Any) -> dict[str, Any]:
        body = {"prompt": "x", **self.rest, **fields}
        return {self.within: body} if self.within else body


DIALECTS = {
    "native": Dialect("/api/ai/images/edit", "input_image", "mask_image", {"model": "quick"}),
    "runpod": Dialect("/v2/quick/runsync", "image", None, {}, "input"),
    "replicate": Dialect("/v1/models/darkroom/quick/predictions", "input_image", "mask", {}, "input"),
    "fal": Dialect("/run/fal-ai/quick", "image_url", "mask_url", {}),
    "bfl": Dialect("/v1/flux-kontext-dev", "input_image", "mask", {"steps": 1}),
    "openai": Dialect("/v1/images/edits", "images", "mask", {"model": "quick"}),
    "nim": Dialect("/v1/infer", "image", None, {"steps": 20}),
    "forge": Dialect("/v1/inference/quick", "image", None, {}),
}


def _as_sent(name: str, value: str, *, is_picture: bool) -> Any:
    return ([{"image_url": value}] if is_picture else {"image_url": value}) if name == "openai" else value


def _answer(iris: Tenant, name: str, **fields: Any) -> requests.Response:
    dialect = DIALECTS[name]
    return iris.post(dialect.path, dialect.body(**fields), headers={"Prefer": "wait=30"})


def _why(iris: Tenant, name: str, answer: requests.Response) -> tuple[str, str | None]:
    """The sentence of a refusal or a failure, and the field it names in a place of its own, if it has one."""
    told = answer.json()
    if name == "native":
        return told["error"]["message"], told["error"]["field"]
    if name == "openai":
        return told["error"]["message"], told["error"]["param"]
    if name == "runpod":
        return told["error"], told.get("field")
    if name == "replicate" and answer.status_code == 422:
        return told["detail"], told["invalid_fields"][0]["field"]
    if name == "replicate":
        return told["error"], None
    if name == "fal":
        (detail,) = (
            told["detail"] if isinstance(told["detail"], list) else [{"msg": told["detail"], "loc": [None, None]}]
        )
        return detail["msg"], detail["loc"][1]
    if name == "bfl" and answer.status_code == 422:
        return told["detail"][0]["msg"], told["detail"][0]["loc"][1]
    if name == "bfl":
        task = eventually(
            lambda: (found := iris.get(f"/v1/get_result?id={told['id']}").json())["status"] == "Error" and found
        )
        return task["details"]["error"], task["details"]["field"]
    return told.get("detail") or told.get("error") or "", None


@pytest.mark.parametrize("picture", [WRONG, PRIVATE], ids=["no picture", "private"])
@pytest.mark.parametrize("name", DIALECTS)
def test_a_picture_that_is_refused_is_called_as_it_was_sent(iris: Tenant, name: str, picture: str) -> None:
    dialect = DIALECTS[name]
    answer = _answer(iris, name, **{dialect.image: _as_sent(name, picture, is_picture=True)})
    assert 400 <= answer.status_code < 500
    sentence, field = _why(iris, name, answer)
    # OpenAI's `image` and `images` are one field in two places.
    own = {dialect.image, dialect.image.removesuffix("s")}
    assert sentence.partition(" ")[0].rstrip(":") in own or name == "nim", sentence
    assert field in (*own, None)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.7/", "http://localhost:9000/", "http://2130706433/", "https://a@example.com/"]
)
@pytest.mark.parametrize("name", WEBHOOKS)
def test_a_webhook_that_may_never_be_called_is_refused_at_once(iris: Tenant, name: str, url: str) -> None:
    dialect, field = DIALECTS[name], WEBHOOKS[name]
    body = dialect.body(**{dialect.image: PICTURE})
    path = {"native": "/api/ai/queue", "runpod": "/v2/quick/run", "fal": "/fal-ai/quick"}.get(name, dialect.path)
    # Beside the input, or in fal's query.
    told = {} if name == "fal" else {field: url}
    answer = iris.post(path, {**body, **told}, params={field: url} if name == "fal" else {})
    assert 400 <= answer.status_code < 500, answer.text
    sentence, _ = _why(iris, name, answer)
    assert sentence.startswith(f"{field}: this address may not be called"), sentence


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "nim"])
def test_a_picture_that_a_worker_cannot_fetch_is_called_as_it_was_sent(iris: Tenant, name: str) -> None:
    dialect = DIALECTS[name]
    answer = _answer(iris, name, **{dialect.image: _as_sent(name, UNREACHABLE, is_picture=True)})
    sentence, field = _why(iris, name, answer)
    own = "image" if name == "openai" else dialect.image
    assert own in sentence
    assert "input_image" not in sentence or own == "input_image"
    assert field in (own, None)


@pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if dialect.mask])
def test_a_mask_that_a_worker_refuses_is_called_as_it_was_sent(iris: Tenant, name: str) -> None:
    dialect = DIALECTS[name]
    answer = _answer(
        iris,
        name,
        **{
            dialect.image: _as_sent(name, PICTURE, is_picture=True),
            str(dialect.mask): _as_sent(name, MASK, is_picture=False),
        },
    )
    sentence, field = _why(iris, name, answer)
    own = "image" if name == "openai" else dialect.image
    assert sentence.startswith(f"{dialect.mask} must have the shape of {own}, 96x64; got 32x64"), sentence
    assert field in (dialect.mask, None)
    if name in ("native", "openai", "fal", "bfl"):
        assert field == dialect.mask
