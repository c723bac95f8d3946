"""Pictures as clients write them into bodies."""

import base64
import textwrap

import pytest
from PIL import Image
from starlette.requests import Request
from starlette.types import Message

from api.http import bodies, pictures
from storage.contracts import edits, errors
from tests.conftest import encoded

PNG = encoded(Image.linear_gradient("L").resize((61, 47)).rotate(30), "PNG") + b"?>"
"""With something after its end, so that all of base64's alphabet is in it."""
PLAIN = base64.b64encode(PNG).decode()
URL_SAFE = base64.urlsafe_b64encode(PNG).decode()


@pytest.mark.parametrize(
    "uri",
    [
        f"data:image/png;base64,{PLAIN}",
        f"data:image/jpeg;base64,{PLAIN}",
        f"data:application/octet-stream;base64,{PLAIN}",
        f"data:;base64,{PLAIN}",
        f"DATA:IMAGE/PNG;BASE64,{PLAIN}",
        f"data:image/png;name=a.png;base64,{PLAIN}",
        f"data:image/png;base64,{URL_SAFE}",
        f"data:image/png;base64,{PLAIN.rstrip('=')}",
        f"data:image/png;base64,\n{textwrap.fill(PLAIN, 76)}\n",
    ],
    ids=["plain", "another type", "octets", "no type", "upper case", "parameter", "URL-safe", "no padding", "lines"],
)
async def test_base64_is_read_in_every_form_and_the_content_decides_the_type(uri: str) -> None:
    (picture,) = await pictures.of_value(uri, "image")
    assert picture == edits.SentPicture(data=PNG, content_type="image/png", transparent=False)


def test_these_forms_differ() -> None:
    assert "=" in PLAIN
    assert {"-", "_"} & set(URL_SAFE)


@pytest.mark.parametrize("bare", [PLAIN, URL_SAFE, PLAIN.rstrip("="), textwrap.fill(PLAIN, 76)])
async def test_bare_base64_is_a_picture_where_that_is_so(bare: str) -> None:
    (picture,) = await pictures.of_value(bare, "image", bare=True)
    assert isinstance(picture, edits.SentPicture)
    assert picture.data == PNG
    with pytest.raises(errors.InvalidInputError, match="image must be an http"):
        await pictures.of_value(bare, "image")


@pytest.mark.parametrize("encoded", [PLAIN[:-3] + "!==", PLAIN[:-1] + "é", "A" * 41])
async def test_what_is_no_base64_is_said_to_be_none(encoded: str) -> None:
    with pytest.raises(errors.InvalidInputError, match=r"image is not valid base64|image must be a whole"):
        await bodies.picture_of_data_uri(f"data:image/png;base64,{encoded}", "image")


def test_pictures_in_any_of_these_forms_are_not_shown_again() -> None:
    words = {
        "c": "https://x.example/a.png",
        "d": "my-org/flux-kontext-watercolour",
        "e": "7f3c2f6e-1111-4222-8333-444455556666",
    }
    assert pictures.echo({"a": f"DATA:;base64,{PLAIN}", "b": URL_SAFE.rstrip("="), **words}) == words


async def test_of_a_long_list_no_entry_is_looked_at() -> None:
    with pytest.raises(errors.InvalidInputError, match="image may have at most 16 pictures; got 17"):
        await pictures.of_value(["nonsense"] * 17, "image")


@pytest.mark.parametrize(
    "raw", [b"[" + b"[]," * 50_000 + b"[]]", b'{"a":[' + b"1," * 50_000 + b"1]}"], ids=["lists", "numbers"]
)
def test_what_would_take_far_more_memory_than_it_has_bytes_is_not_parsed(
    raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(bodies, "pydantic_core")
    with pytest.raises(errors.InvalidInputError, match="The body may have at most 40000 commas"):
        bodies.parsed(raw)


def _request(kind: str, *pieces: bytes) -> Request:
    left = list(pieces)

    async def receive() -> Message:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", kind.encode())]}
    return Request(scope, receive)


@pytest.mark.parametrize("body", [b"&" * 65, b"a=1" + b"&" * 100_000, b"&".join(b"a%d=1" % n for n in range(66))])
async def test_a_form_of_more_fields_than_there_are_is_not_taken_apart(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(Request, "form", None)
    with pytest.raises(errors.InvalidInputError, match="at most 64 fields"):
        await bodies.read(_request(bodies.URLENCODED, body), files=("image",))


async def test_where_no_body_is_to_be_little_of_one_is_read() -> None:
    await bodies.none(_request("application/json", b"{", b"}\n"))
    with pytest.raises(errors.InvalidInputError, match=r"takes no fields; got a, b$"):
        await bodies.none(_request("application/json", b'{"b": 1,', b' "a": 2}'))
    endless = _request("application/json", *[b" " * 1000] * 6, b"never read")
    with pytest.raises(errors.InvalidInputError, match="got something else"):
        await bodies.none(endless)
    assert (await endless.receive())["body"] == b" " * 1000, "it stopped at the fifth"
