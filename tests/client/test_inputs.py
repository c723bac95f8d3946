"""Pictures as callers have them become requests, and the twin is as its original."""

import io
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

import darkroom
from darkroom import answers, inputs, twin

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
