"""Pictures as callers have them become requests, and the twin is as its original."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from PIL import Image

import darkroom
from darkroom import answers, batches, handover, inputs, tables, twin
from darkroom.shapes import Event

PNG = b"\x89PNG the rest"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(PNG)
    return path


def test_a_url_goes_as_json_and_what_is_absent_is_left_out() -> None:
    request = inputs.request_of({"prompt": "x", "seed": None}, {"input_image": "https://a/b.png", "mask_image": None})
    assert request == {"json": {"prompt": "x", "input_image": "https://a/b.png"}}
    several = inputs.request_of({}, {"input_image": ["https://a", "data:image/png;base64,x"]})
    assert several == {"json": {"input_image": ["https://a", "data:image/png;base64,x"]}}


def test_a_path_is_uploaded_as_text_or_as_a_path(file: Path) -> None:
    for source in (file, str(file)):
        request = inputs.request_of({"no_store": True, "seed": 7, "metadata": {"a": 1}}, {"input_image": source})
        assert request["files"] == [("input_image", ("photo.png", PNG))]
        assert request["data"] == {"no_store": "true", "seed": "7", "metadata": '{"a": 1}'}


def test_several_paths_bytes_and_pillows_images_are_uploaded(file: Path) -> None:
    image = Image.new("RGB", (2, 2))
    request = inputs.request_of({}, {"input_image": [file, PNG, image], "mask_image": file})
    assert [name for name, _ in request["files"]] == ["input_image"] * 3 + ["mask_image"]
    assert request["files"][1][1][1] == PNG
    assert Image.open(io.BytesIO(request["files"][2][1][1])).size == (2, 2)


def test_what_is_no_picture_is_refused_before_anything_is_sent(file: Path) -> None:
    for wrong in (5, object(), ["https://a", file], [file, "https://a"]):
        with pytest.raises(TypeError):
            inputs.request_of({}, {"input_image": wrong})  # type: ignore[dict-item]
    with pytest.raises(FileNotFoundError):
        inputs.request_of({}, {"input_image": "nowhere.png"})


@pytest.mark.parametrize("key", ["", "  ", "schlüssel", "two words", "line\nbreak"])
def test_a_key_that_cannot_be_one_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="API key"):
        darkroom.Client("http://127.0.0.1:1", key)


def test_ids_and_names_are_quoted_in_paths() -> None:
    assert answers.path("/api/ai/queue/{}", "../models?x=1") == "/api/ai/queue/..%2Fmodels%3Fx%3D1"


def test_an_error_says_what_the_service_said() -> None:
    body = {"error": {"code": "invalid_input", "message": "seed: no", "field": "seed"}}
    fault = answers.fault_of(httpx.Response(400, json=body, headers={"X-Request-Id": "r1", "Retry-After": "3"}))
    assert isinstance(fault, darkroom.RefusedError)
    assert (fault.code, fault.field, fault.request_id, fault.retry_after_s) == ("invalid_input", "seed", "r1", 3)
    for strange in (httpx.Response(502, text="<html>"), httpx.Response(500, json=["x"]), httpx.Response(500, json={})):
        assert answers.fault_of(strange).code == "unknown"


def test_the_synchronous_client_is_made_of_the_other() -> None:
    assert twin.TWIN.read_text() == twin.synchronous(), "run python -m darkroom.twin"


FOREIGN = """
import sys
before = set(sys.modules)
import darkroom.cli, darkroom.batches
found = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(" ".join(sorted(name for name in found if not name.startswith("_"))))
"""
KNOWN = {
    "annotated_doc", "annotated_types", "anyio", "brotli", "certifi", "click", "darkroom", "h11", "httpcore", "httpx",
    "httpx_sse", "idna", "markdown_it", "mdurl", "platformdirs", "pydantic", "pydantic_core", "pygments", "rich",
    "shellingham", "sniffio", "typer", "typing_extensions", "typing_inspection",
}  # fmt: skip


def test_the_client_needs_nothing_of_the_service() -> None:
    done = subprocess.run([sys.executable, "-c", FOREIGN], check=True, capture_output=True, text=True)
    assert set(done.stdout.split()) <= KNOWN


def test_a_line_of_a_batch_ends_where_a_file_ends_it(tmp_path: Path) -> None:
    file = tmp_path / "edits.jsonl"
    prompts = ["one\u2028line", "next\x85line"]
    lines = "\r\n".join(json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts)
    file.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert [row.parameters["prompt"] for row in tables.rows_of(file, {})] == prompts


async def test_what_is_followed_after_a_retry_is_the_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(type_: str) -> Event:
        return Event(cursor="1", type=type_, data={"generation_id": "g"})

    told = [event("media_generation_completed"), event("media_generation_queued"), event("media_generation_completed")]
    is_over = iter([False, False, True])

    async def events(self: object, **_: object) -> AsyncIterator[Event]:
        for one in told:
            yield one

    async def generation(self: object, id_: str) -> SimpleNamespace:
        return SimpleNamespace(is_over=next(is_over))

    monkeypatch.setattr(darkroom.AsyncClient, "events", events)
    monkeypatch.setattr(darkroom.AsyncClient, "generation", generation)
    async with darkroom.AsyncClient("http://127.0.0.1:9", "key") as client:
        assert [one async for one in client.follow("g")] == told[1:]


@pytest.mark.parametrize(("headers", "times"), [({"X-Request-Id": "r"}, 1), ({"idempotency-key": "k"}, 8)])
async def test_what_changes_something_is_repeated_with_an_idempotency_key_alone(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], times: int
) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(504)

    monkeypatch.setattr(answers, "pause_s", lambda failures: 0)
    async with darkroom.AsyncClient("http://127.0.0.1:9", "key") as client:
        client._http = httpx.AsyncClient(base_url=client.url, transport=httpx.MockTransport(answer))
        with pytest.raises(darkroom.ApiError):
            await client.ask("POST", "/api/ai/queue", json={}, headers=headers)
    assert len(asked) == times


async def test_comments_that_keep_a_stream_alive_are_no_events() -> None:
    body = (
        b': keep-alive\n\nid: 1-0\nevent: media_generation_started\ndata: {"n": 1}\n\n: keep-alive\n\n: keep-alive\n\n'
    )
    body += b'id: 2-0\nevent: media_generation_completed\ndata: {"n": 2}\n\n'

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=body, headers={"Content-Type": "text/event-stream"})

    async with darkroom.AsyncClient("http://127.0.0.1:9", "key") as client:
        client._http = httpx.AsyncClient(base_url=client.url, transport=httpx.MockTransport(answer))
        events = client.events()
        told = [await anext(events) for _ in range(2)]
    assert [(one.cursor, one.type, one.data) for one in told] == [
        ("1-0", "media_generation_started", {"n": 1}), ("2-0", "media_generation_completed", {"n": 2}),
    ]  # fmt: skip


async def test_a_model_that_loads_long_is_waited_for() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"state": "warm"})

    async with darkroom.AsyncClient("http://127.0.0.1:9", "key") as client:
        client._http = httpx.AsyncClient(base_url=client.url, transport=httpx.MockTransport(answer), timeout=30)
        await client.start("flux-2-dev")
    assert asked[0].extensions["timeout"]["read"] > 600, "as long as the service waits"


@pytest.mark.parametrize("out", ["../a.png", "/tmp/a.png", "b/../../a.png", "..\\a.png", "C:\\a.png", "C:a.png"])
def test_a_row_saves_its_result_nowhere_but_in_the_folder(tmp_path: Path, out: str) -> None:
    file = tmp_path / "edits.jsonl"
    file.write_text(json.dumps({"prompt": "x", "out": out}))
    with pytest.raises(ValueError, match="row 1: out must be a path inside the folder of results; got ") as refused:
        tables.rows_of(file, {})
    assert str(refused.value).endswith(out)
    file.write_text(json.dumps({"prompt": "x", "out": "b/..a.png"}))
    assert tables.rows_of(file, {})[0].out == "b/..a.png"


@pytest.mark.parametrize("lines", ["custom_id,prompt\na,blue; sky\n", "custom_id;prompt\na;blue, sky\n"])
def test_a_table_of_a_spreadsheet_may_have_semicolons_or_commas(tmp_path: Path, lines: str) -> None:
    file = tmp_path / "edits.csv"
    file.write_text(lines)
    (row,) = tables.rows_of(file, {})
    assert (row.custom_id, row.parameters["prompt"]) == ("a", "blue, sky" if ";p" in lines else "blue; sky")


@pytest.mark.parametrize("nothing", [{"aspect_ratio": None}, {"width": None, "height": None}, {"exact_size": False}])
def test_a_shape_that_is_none_leaves_the_inputs(nothing: dict[str, object]) -> None:
    assert inputs.shaped(nothing, has_picture=True)["aspect_ratio"] == "match_input_image"
    assert "aspect_ratio" not in inputs.shaped({"width": 64, "height": 64}, has_picture=True)


def test_a_files_name_may_begin_with_a_tilde_and_be_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~x y.jpg").write_bytes(b"1")
    assert inputs._upload("~x y.jpg") == ("~x y.jpg", b"1")
    odd = os.fsdecode(b"caf\xe9.jpg")
    Path(odd).write_bytes(b"2")
    assert inputs._upload(odd) == ("caf?.jpg", b"2")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("custom_id,prompt\na,warm, cosy and soft\nb,x\n", "row 1: more cells than columns"),
        ('custom_id,prompt\na,"never closed\nb,x\n', "row 1: unexpected end of data"),
        ('{"prompt": "x", "guidance": NaN}', "NaN is not JSON"),
        ('{"prompt": "x", "image": ["a.png", "b.png"]}', "image must be one path or URL; got list"),
        ('{"prompt": "x", "out": "Manifest.jsonl"}', "is the batch's own file"),
    ],
)
def test_a_row_that_would_run_as_something_else_is_told(tmp_path: Path, lines: str, said: str) -> None:
    file = tmp_path / ("edits.jsonl" if lines.startswith("{") else "edits.csv")
    file.write_text(lines)
    with pytest.raises(ValueError, match=said):
        tables.rows_of(file, {})


def test_a_cell_may_hold_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "edits.csv"
    file.write_text(f'prompt,image\nx,"data:image/png;base64,{"A" * 200_000}"\n')
    (row,) = tables.rows_of(file, {})
    assert len(row.image or "") > 200_000


class _Service:
    """A client whose pictures come, or fail as they are told to."""

    def __init__(self, *ends: Exception | None) -> None:
        self._ends = list(ends)
        self.sent: list[dict[str, Any]] = []

    async def usage(self) -> None:
        pass

    async def enqueue(self, image: str | None, prompt: str, **more: Any) -> SimpleNamespace:
        self.sent.append(more)
        return SimpleNamespace(ids=[f"g{len(self.sent)}"])

    async def picture(self, id_: str) -> darkroom.Picture:
        end = self._ends.pop(0) if self._ends else None
        if end is not None:
            raise end
        raw = {
            "generation_id": id_,
            "status": "succeeded",
            "model_name": "m",
            "prompt": "x",
            "seed": 1,
            "cost_usd": 0.0,
        }
        return darkroom.Picture(generation=darkroom.Generation.of(raw), data=b"x", content_type="image/webp")


def _api_error(status: int) -> darkroom.ApiError:
    return darkroom.ApiError(status, "x", "told")


async def _batch(service: Any, folder: Path, *, retry_failed: bool = False, **more: Any) -> list[str]:
    rows = [tables.Row(custom_id="a", image=None, parameters={"prompt": "x"}, **more)]
    with batches.Manifest.opened(folder) as manifest:
        open_ = [row for row in rows if manifest.is_open(row, retry_failed=retry_failed)]
        await batches.run(service, open_, manifest, concurrency=2)
        return [manifest.outcome(row) for row in rows]


@pytest.mark.parametrize(("status", "outcome"), [(500, "unsaved"), (403, "unsaved"), (404, "refused")])
async def test_what_was_accepted_is_not_paid_for_again(tmp_path: Path, status: int, outcome: str) -> None:
    service = _Service(_api_error(status))
    assert await _batch(service, tmp_path) == [outcome]
    assert await _batch(service, tmp_path, retry_failed=True) == ["succeeded"]
    assert len(service.sent) == (1 if outcome == "unsaved" else 2)


async def test_a_batch_stops_with_its_key_and_goes_on_with_another(tmp_path: Path) -> None:
    service = _Service(_api_error(401))
    with pytest.raises(darkroom.ApiError):
        await _batch(service, tmp_path)
    assert await _batch(service, tmp_path) == ["succeeded"]
    assert len(service.sent) == 1


async def test_a_row_that_cannot_be_sent_ends_alone(tmp_path: Path) -> None:
    service = _Service(ValueError("odd"))
    assert await _batch(service, tmp_path) == ["refused"]


@pytest.mark.parametrize(("out", "format_"), [("a.png", "png"), ("b.JPEG", "jpg"), ("c", None), (None, None)])
async def test_the_ending_of_a_place_says_the_format(tmp_path: Path, out: str | None, format_: str | None) -> None:
    service = _Service()
    await _batch(service, tmp_path, out=out)
    assert service.sent[0].get("output_format") == format_


def test_saving_goes_on_after_what_is_gone(tmp_path: Path) -> None:
    lines = [{"custom_id": f"{n}", "status": "succeeded", "generation_id": f"g{n}"} for n in range(3)]
    raw = {"generation_id": "g", "status": "succeeded", "model_name": "m", "prompt": "x", "seed": 1, "expires_at": 1}

    class Client:
        def fetch(self, url: str) -> bytes:
            return "\n".join(map(json.dumps, lines)).encode() if url == "jsonl" else b""

        def picture(self, id_: str) -> darkroom.Picture:
            generation = darkroom.Generation.of({**raw, "generation_id": id_})
            if id_ == "g0":
                raise darkroom.GoneError(generation)
            if id_ == "g1":
                raise darkroom.RefusedError(404, "not_found", "not found")
            return darkroom.Picture(generation=generation, data=b"x", content_type="image/webp")

    client: Any = Client()
    batch = {"batch_id": "b", "results": {"csv_url": "csv", "jsonl_url": "jsonl"}}
    with pytest.raises(darkroom.DarkroomError, match="2 results are no longer kept"):
        handover.save_results(client, batch, tmp_path, lambda count: contextlib.nullcontext(lambda outcome: None))
    assert (tmp_path / "2.webp").exists()
