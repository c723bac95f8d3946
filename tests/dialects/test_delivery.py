"""Results and uploads from our own host, and what browsers of other origins may do."""

import functools
import hashlib
import io
import json
from random import Random
from typing import Any

import openai
import pytest
import replicate.client
import requests
from PIL import Image
from starlette.testclient import TestClient

from api.app import ANSWER_HEADERS, create_app
from api.http import downloads
from api.settings import ApiSettings
from storage.contracts import edits
from tests.conftest import Tenant, data_uri, encoded
from tests.dialects.conftest import small_picture

ORIGIN = "https://studio.example"


@pytest.fixture
def link(rita: Tenant, tiny: str) -> str:
    asked = {"version": "quick", "input": {"prompt": "x", "input_image": tiny}}
    return str(rita.post("/v1/predictions", asked, headers={"Prefer": "wait=30"}).json()["output"])


def _part(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()}, timeout=10)


def test_a_link_is_asked_about_without_being_fetched(link: str) -> None:
    whole, asked = requests.get(link, timeout=10), requests.head(link, timeout=10)
    assert (asked.status_code, asked.content) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Accept-Ranges"):
        assert asked.headers[name] == whole.headers[name]
    assert whole.headers["Content-Type"] == "image/webp"


@pytest.mark.parametrize(
    ("wanted", "bounds"),
    [("bytes=0-9", (0, 10)), ("bytes=5-", (5, None)), ("bytes=-7", (-7, None)), ("bytes=3-999999999", (3, None))],
)
def test_a_part_of_it_can_be_had(link: str, wanted: str, bounds: tuple[int, int | None]) -> None:
    whole = requests.get(link, timeout=10).content
    part = _part(link, Range=wanted)
    expected = whole[slice(*bounds)]
    assert (part.status_code, part.content) == (206, expected)
    first = whole.index(expected)
    assert part.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{len(whole)}"


def test_one_that_is_fetched_in_pieces_comes_whole(rita: Tenant) -> None:
    noise = Image.frombytes("RGB", (700, 700), Random(1).randbytes(700 * 700 * 3))
    sent = encoded(noise, "PNG")
    assert len(sent) > 5 * downloads.PIECE
    file = {"content": ("noise.png", sent)}
    made = requests.post(f"{rita.url}/v1/files", headers=rita.headers, files=file, timeout=20).json()
    first, last = downloads.PIECE - 3, 2 * downloads.PIECE + 5
    assert requests.get(made["urls"]["get"], timeout=10).content == sent
    part = _part(made["urls"]["get"], Range=f"bytes={first}-{last}")
    assert (part.status_code, part.content) == (206, sent[first : last + 1])


@pytest.mark.parametrize("wanted", ["bytes=0-1,4-5", "bytes=9-3", "bytes=-", "lines=1-2"])
def test_of_what_is_not_understood_the_whole_is_sent(link: str, wanted: str) -> None:
    assert _part(link, Range=wanted).status_code == 200


@pytest.mark.parametrize("wanted", ["bytes=999999999-", "bytes=-0"])
def test_a_part_that_is_not_there_is_said_not_to_be(link: str, wanted: str) -> None:
    refused = _part(link, Range=wanted)
    assert refused.status_code == 416
    assert refused.headers["Content-Range"].startswith("bytes */")


def test_what_somebody_has_is_not_sent_again(link: str) -> None:
    etag = requests.get(link, timeout=10).headers["ETag"]
    assert (_part(link, If_None_Match=etag).status_code, _part(link, If_None_Match=etag).content) == (304, b"")
    assert _part(link, If_None_Match=f'"other", {etag}').status_code == 304
    assert _part(link, If_None_Match='"other"').status_code == 200
    assert _part(link, Range="bytes=0-3", If_Range=etag).status_code == 206
    assert _part(link, Range="bytes=0-3", If_Range='"other"').status_code == 200


def test_types_are_ours_and_not_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mimetypes.guess_type", lambda *_, **__: (None, None))
    assert edits.content_type_of("results/a/b/1.webp") == "image/webp"
    assert edits.content_type_of("files/a/b.gif") == "image/gif"
    assert edits.content_type_of("files/a/b.bin") == "application/octet-stream"
    assert [edits.extension_of(one) for one in ("image/jpeg", "image/gif", "text/html")] == ["jpg", "gif", None]


def test_openais_results_may_be_fetched_with_the_key(olga: Tenant) -> None:
    """As Open WebUI does; the object store would refuse a signed URL beside a key."""
    with openai.OpenAI(base_url=f"{olga.url}/v1", api_key=olga.key) as client:
        made = client.images.edit(model="quick", image=small_picture(), prompt="x", response_format="url")
    assert made.data
    fetched = requests.get(str(made.data[0].url), headers=olga.headers, timeout=10)
    assert (fetched.status_code, fetched.headers["content-type"]) == (200, "image/png")


def test_a_picture_is_put_where_an_address_was_handed_out(faye: Tenant) -> None:
    begun = faye.post("/storage/upload/initiate?storage_type=gcs", {"content_type": "image/png", "file_name": "a.png"})
    slot = begun.json()
    assert requests.get(slot["file_url"], timeout=10).status_code == 404
    put: Any = functools.partial(requests.put, headers={"Content-Type": "image/png"}, timeout=10)
    assert put(slot["upload_url"] + "x", data=small_picture()).status_code == 404
    assert put(slot["upload_url"], data=b"no picture").status_code == 400
    assert put(slot["upload_url"], data=small_picture()).status_code == 200
    assert put(slot["upload_url"], data=small_picture()).status_code == 200, "again, by a client that had no answer"
    assert put(slot["upload_url"], data=small_picture() + b"x").status_code == 400, "what lies there does not change"
    assert requests.get(slot["file_url"], timeout=10).content == small_picture()
    made = faye.post("/run/fal-ai/quick", {"prompt": "x", "image_url": slot["file_url"]})
    assert made.status_code == 200


def test_what_a_key_may_send_in_a_minute_holds_for_slots_too(faye: Tenant) -> None:
    begun = faye.post("/storage/upload/initiate", {"content_type": "image/png"}).json()
    assert "pace=&" in begun["upload_url"] + "&"
    forged = begun["upload_url"].replace("pace=", "pace=9999-nobody")
    assert requests.put(forged, data=small_picture(), timeout=10).status_code == 404


@pytest.fixture(scope="module")
def browser() -> TestClient:
    settings = ApiSettings(cors_origins=[ORIGIN], api_keys={"somebody": "k" * 20})
    return TestClient(create_app(settings))


def _preflight(browser: TestClient, origin: str, headers: str) -> Any:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": headers,
    }
    return browser.options("/v1/images/edits", headers=asked)


@pytest.mark.parametrize(
    "headers",
    [
        "authorization,content-type,x-stainless-os,x-stainless-lang,x-stainless-retry-count,openai-organization",
        "user-agent,idempotency-key,last-event-id,prefer",
        "x-fal-queue-priority,x-fal-object-lifecycle-preference,x-fal-runner-hint",
        "api-key,x-key,x-ms-client-request-id",
    ],
)
def test_an_allowed_origins_clients_send_what_they_like(browser: TestClient, headers: str) -> None:
    answer = _preflight(browser, ORIGIN, headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert set(headers.split(",")) <= set(
        answer.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    )


def test_another_origin_is_told_nothing(browser: TestClient) -> None:
    assert (
        "access-control-allow-origin" not in _preflight(browser, "https://elsewhere.example", "authorization").headers
    )


def test_what_is_answered_may_be_read(browser: TestClient) -> None:
    answer = browser.get("/health/live", headers={"Origin": ORIGIN})
    exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {name.lower() for name in ANSWER_HEADERS} == exposed
    assert {"darkroom-ignored", "retry-after", "etag", "x-fal-request-id", "x-request-id", "content-range"} <= exposed


def test_replicates_files_are_listed_read_and_deleted(rita: Tenant) -> None:
    client = replicate.client.Client(api_token=rita.key, base_url=rita.url)
    made = client.files.create(io.BytesIO(small_picture()))
    assert made.id in [one.id for one in client.files.list()]
    found = client.files.get(made.id)
    assert (found.size, found.content_type) == (len(small_picture()), "image/png")
    assert found.checksums["sha256"] == hashlib.sha256(small_picture()).hexdigest()
    client.files.delete(made.id)
    assert made.id not in [one.id for one in client.files.list()]
    assert rita.get(f"/v1/files/{made.id}").status_code == 404
    assert rita.get("/v1/files/../../results").status_code == 404
    client._client.close()


def test_another_tenant_sees_no_file(rita: Tenant, ruth: Tenant) -> None:
    made = requests.post(
        f"{rita.url}/v1/files", headers=rita.headers, files={"content": ("a.png", small_picture())}, timeout=10
    ).json()
    assert ruth.get(f"/v1/files/{made['id']}").status_code == 404
    assert ruth.delete(f"/v1/files/{made['id']}").status_code == 404
    assert made["id"] not in [one["id"] for one in ruth.get("/v1/files").json()["results"]]


def test_a_form_of_text_alone_is_read_where_forms_are(olga: Tenant) -> None:
    picture = data_uri(small_picture())
    fields = {"model": "quick", "prompt": "x", "image": picture, "n": "2", "response_format": "url"}
    made = requests.post(f"{olga.url}/v1/images/edits", headers=olga.headers, data=fields, timeout=30)
    assert (made.status_code, len(made.json()["data"])) == (200, 2)


def test_json_that_a_shell_calls_a_form_is_json(faye: Tenant) -> None:
    body = json.dumps({"prompt": "x", "image_url": data_uri(small_picture())})
    headers = {**faye.headers, "Content-Type": "application/x-www-form-urlencoded"}
    assert requests.post(f"{faye.url}/run/fal-ai/quick", headers=headers, data=body, timeout=30).status_code == 200


def test_the_kind_of_a_body_is_compared_without_case(olga: Tenant) -> None:
    prepared = requests.Request(
        "POST", f"{olga.url}/v1/images/edits", headers=olga.headers,
        files={"image": ("a.png", small_picture())}, data={"model": "quick", "prompt": "x"},
    ).prepare()  # fmt: skip
    prepared.headers["Content-Type"] = prepared.headers["Content-Type"].replace(
        "multipart/form-data", "Multipart/Form-Data"
    )
    with requests.Session() as session:
        assert session.send(prepared, timeout=30).status_code == 200


@pytest.mark.parametrize("path", ["/v1/files/none", "/v1/models/a/b/versions", "/v1/predictions/none", "/v1/account"])
def test_replicates_errors_have_its_shape_on_every_route(rita: Tenant, path: str) -> None:
    refused = requests.get(rita.url + path, headers={"Authorization": "Bearer nobody"}, timeout=10)
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
    assert refused.json()["title"]


def test_fals_errors_have_its_shape_on_every_route(faye: Tenant) -> None:
    for path in ("/storage/upload/initiate", "/fal-ai/quick"):
        refused = faye.post(path, {})
        assert (refused.status_code, isinstance(refused.json()["detail"], list)) == (422, True)
