"""Forge's routes: the published shell samples where the pages are at hand, and the same in our words."""

import base64
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from api.dialects import base
from api.dialects.forge import asking, catalogue
from infra import embedded
from storage.settings import StoreSettings
from tests.conftest import Tenant, eventually
from tests.dialects.conftest import PROMPT, pixels, tenant
from tests.service.test_published_samples import PAGES

FORGE_PAGES = ("000_6e9938c22e95b18f.txt", "001_5174d7bda551664b.txt")
ONE_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mP8/x8AAwMCAO+/p9sAAAAASUVORK5CYII="
)
KONTEXT, FLUX2 = "black-forest-labs-flux-1-kontext-dev", "black-forest-labs-flux-2-dev"

SHELL = r"^(?:set -euo pipefail\n)?(?:#[^\n]*\n)*FORGE_API_BASE=\$\{.*?^(?:python3 -m json\.tool|fi)\n(?=\n|[A-Z])"

FASTEST = """set -euo pipefail
curl -sS --fail-with-body "$FORGE_API_BASE/v1/models/$1/reliability?$2" -H "Authorization: Bearer $FORGE_API_KEY" | python3 -c '
import json, sys
found = json.load(sys.stdin)
target = found["fastest_supported_target"]
rate = target["observed_success_rate"]
print(target["gpu_type"], target["region"], target["request_ms_p50"], target["estimated_warm_request_cost_usd"],
      f"{rate:.0%}", found["supported_rows"], found["total_rows"])'
"""


@pytest.fixture
def forge(stack: embedded.Stack) -> Tenant:
    return tenant(stack, "faye")


def _shell(forge: Tenant, code: str, *arguments: str, base: str = "") -> str:
    environment = {**os.environ, "FORGE_API_BASE": forge.url + base, "FORGE_API_KEY": forge.key}
    done = subprocess.run(
        ["bash", "-c", code, "bash", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _probe(forge: Tenant, *models: str) -> str:
    command = [str(Path(sys.executable).parent / "darkroom"), "--url", forge.url, "--key", forge.key, "probe", *models]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def _published(page: str) -> list[str]:
    """The samples that the page kept whole: others lost their line breaks, and a comment swallows the rest of them."""
    text = (PAGES / page).read_text()
    shells = re.findall(SHELL, text, re.DOTALL | re.MULTILINE)
    return [code for code in shells if "curl" in code]


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="the samples need curl")


@needs_curl
@pytest.mark.skipif(not PAGES.exists(), reason="the published pages are not at hand (DARKROOM_REFERENCE_PAGES)")
@pytest.mark.parametrize("base", ["", "/v1"])
@pytest.mark.parametrize("page", FORGE_PAGES)
def test_a_published_sample_runs(forge: Tenant, page: str, base: str) -> None:
    samples = _published(page)
    assert len(samples) == 2, "the route check and the request"
    route_check, request = (_shell(forge, code, base=base) for code in samples)
    assert '"routes"' in route_check
    assert '"artifacts"' in request


@needs_curl
@pytest.mark.parametrize("filters", ["", "gpu_type=cpu&region=local", "gpu_type=H100&region=eu-north1"])
def test_what_was_probed_is_found_reliable_whatever_is_asked_for(forge: Tenant, filters: str) -> None:
    _probe(forge, "quick")
    eventually(lambda: forge.get("/v1/models/quick/reliability").json()["supported_rows"] == 1)
    told = _shell(forge, FASTEST, "quick", filters)
    gpu_type, region, request_ms, cost, rate, supported, _ = told.split()
    assert (gpu_type, region, cost, rate) == ("cpu", "local", "0.0", "100%")
    assert 15 <= int(request_ms) <= 1000
    assert int(supported) == 1


def test_a_tiny_picture_with_a_wrong_checksum_is_read_and_a_cut_one_is_not(forge: Tenant) -> None:
    body = {"prompt": PROMPT, "image": ONE_PIXEL}
    assert forge.post("/v1/inference/quick", body).status_code == 200
    cut = forge.post("/v1/inference/quick", {**body, "image": ONE_PIXEL[:-40]})
    assert cut.status_code == 400


def test_a_probe_runs_what_is_missing_and_no_more(forge: Tenant) -> None:
    _probe(forge, "quick")
    eventually(lambda: forge.get("/api/ai/models/quick/estimate").json()["targets"][0]["is_measured"])
    assert _probe(forge, "quick") == ""
    assert _probe(forge, "quick", "--again", "--runs", "2").split()[:3] == ["quick", "cpu", "local"]


def test_kontext_edits_a_single_pixel_at_a_literal_seed(forge: Tenant) -> None:
    body = {"prompt": PROMPT, "image": ONE_PIXEL, "seed": 0, "steps": 4, "model": KONTEXT, "model_version": "1-1-3"}
    answers = [forge.post(f"/v1/inference/{KONTEXT}", body) for _ in range(2)]
    assert [one.status_code for one in answers] == [200, 200]
    first, second = (one.json() for one in answers)
    made = [pixels(base64.b64decode(one["artifacts"][0]["base64"])) for one in (first, second)]
    assert made[0] == made[1], "the same seed gives the same pixels"
    assert first["artifacts"][0]["seed"] == 0
    assert (first["gpu_type"], first["region"], first["model_version"]) == ("cpu", "local", "1-1-3")
    assert int(answers[0].headers["x-model-time-ms"]) > 0
    assert made[0][0] == (first["width"], first["height"])


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"width": 96, "height": 64}, (96, 64)),
        ({"width": 128, "height": 128, "aspect_ratio": "1:1"}, (128, 128)),
        ({"width": 256, "height": 256, "aspect_ratio": "16:9"}, (336, 192)),
        ({"width": 96, "height": 64, "image": ""}, (96, 64)),
        ({"width": 96, "height": 64, "caption_upsample_temperature": 0.2}, (96, 64)),
    ],
)
def test_flux_2_makes_pictures_of_the_size_and_shape_asked_for(
    forge: Tenant, asked: dict[str, Any], size: tuple[int, int]
) -> None:
    body = {"prompt": "a bird", "steps": 1, "seed": 3, "model_version": "diffusers-bf16", **asked}
    answer = forge.post(f"/v1/inference/{FLUX2}", body).json()
    assert pixels(base64.b64decode(answer["artifacts"][0]["base64"]))[0] == size
    assert bool(answer["upsampled_prompt"]) == ("caption_upsample_temperature" in asked)
    assert answer["notes"] == []


@pytest.mark.parametrize(
    ("model", "steps", "guidance"),
    [("flux-2-dev", 28, 4.0), ("flux-2-klein-4b", None, None), ("flux-kontext-dev", 30, None)],
)
def test_a_family_has_its_own_defaults(model: str, steps: int | None, guidance: float | None) -> None:
    taken = base.of_family(asking.FAMILIES, StoreSettings().read_catalog().model(model)).check({"prompt": "x"})
    assert (taken.steps, taken.guidance_scale) == (steps, guidance)


def test_forges_names_of_gpu_types_are_known() -> None:
    assert asking.pins_of({"gpu_type": "RTX6000"}).gpu_types == ("rtx-pro-6000",)
    assert asking.pins_of({"gpu_type": ["H200", "RTX6000"]}).gpu_types == ("h200", "rtx-pro-6000")
    assert catalogue.is_wanted("rtx-pro-6000", "us", "RTX6000", None)
    assert not catalogue.is_wanted("h200", "us", "RTX6000", None)


def test_what_a_model_makes_no_use_of_is_said(forge: Tenant) -> None:
    body = {"prompt": "a bird", "steps": 1, "width": 96, "height": 64, "caption_upsample_temperature": 0.2}
    answer = forge.post("/v1/inference/flux-2-klein-4b", body).json()
    assert answer["upsampled_prompt"] is None
    assert "caption_upsample_temperature changes nothing: flux-2-klein-4b runs prompts" in answer["notes"][0]


@pytest.mark.parametrize(
    ("asked", "status", "field"),
    [
        ({"gpu_type": "h1000"}, 400, "gpu_type"),
        ({"gpu_type": "h100"}, 400, "gpu_type"),
        ({"region": "moon"}, 400, "region"),
        ({"model_version": "9"}, 404, "model_version"),
        ({"steps": 0}, 400, "steps"),
        ({"image": "nonsense"}, 400, "image"),
        ({"image": ""}, 400, "image"),
        ({"unheard_of": 1}, 400, "unheard_of"),
    ],
)
def test_what_cannot_be_is_refused_by_name(forge: Tenant, asked: dict[str, Any], status: int, field: str) -> None:
    refused = forge.post("/v1/inference/quick", {"prompt": PROMPT, "image": ONE_PIXEL, **asked})
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, field)


def test_a_filtered_request_is_a_real_error(forge: Tenant) -> None:
    refused = forge.post("/v1/inference/quick", {"prompt": "child porn", "image": ONE_PIXEL})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "content_filtered")


def test_the_catalogue_is_searched_page_by_page_and_openais_clients_read_it_too(forge: Tenant) -> None:
    whole = forge.get("/v1/models").json()
    pages = [forge.get(f"/v1/models?limit=3&offset={offset}").json() for offset in range(0, whole["total"], 3)]
    assert [one["slug"] for page in pages for one in page["models"]] == [one["slug"] for one in whole["models"]]
    assert {"flux-kontext-dev"} <= {one["slug"] for one in forge.get("/v1/models?search=kontext dev").json()["models"]}
    by_slug = forge.get("/v1/models?search=black-forest-labs-flux-2-dev").json()["models"]
    assert "flux-2-dev" in {one["slug"] for one in by_slug}, "by the name that Forge has for it"
    assert forge.get("/v1/models?search=nothing+of+the+kind").json()["total"] == 0
    client = openai.OpenAI(base_url=f"{forge.url}/v1", api_key=forge.key)
    assert [one.id for one in client.models.list()] == [one["slug"] for one in whole["models"]]
    client.close()


def test_a_family_has_its_versions(forge: Tenant) -> None:
    versions = {one["version"] for one in forge.get(f"/v1/model-families/{FLUX2}").json()["versions"]}
    assert versions == {"diffusers-bf16", "diffusers-fp8", "bnb-4bit", "diffusers-bf16-upsampling"}
    status = forge.get(f"/v1/model-families/{FLUX2}/status?version=diffusers-fp8").json()
    assert (status["model"], status["version"]) == ("flux-2-dev-fp8", "diffusers-fp8")


def test_a_model_is_started_kept_and_stopped(forge: Tenant) -> None:
    def state() -> str:
        return str(forge.get("/v1/model-families/heavy/status").json()["status"])

    forge.post("/v1/model-families/heavy/stop", {})
    eventually(lambda: state() == "cold")
    started = forge.post("/v1/model-families/heavy/start", {"run_until_stopped": True}).json()
    assert (started["was_cold_start"], started["keep_warm"], started["gpu_type"]) == (True, True, "cpu")
    assert started["startup_ms"] >= 2000, "it takes two and a half seconds to load"
    again = forge.post("/v1/model-families/heavy/start", {"gpu_type": "CPU", "region": "local"}).json()
    assert (again["was_cold_start"], again["startup_ms"]) == (False, 0)
    forge.post("/v1/model-families/heavy/stop", {})
    eventually(lambda: state() == "cold")


def test_a_start_where_nobody_is_says_that_it_waits(forge: Tenant) -> None:
    waiting = forge.post("/v1/model-families/pinned/start", {"gpu_type": "h100"})
    assert (waiting.status_code, waiting.json()["status"]) == (202, "waiting_for_worker")
    never = forge.post("/v1/model-families/quick/start", {"gpu_type": "h100"})
    assert never.status_code == 400


def test_a_start_that_cannot_work_says_why(forge: Tenant) -> None:
    failed = forge.post("/v1/model-families/absent/start", {})
    assert (failed.status_code, failed.json()["error"]["code"]) == (503, "model_unavailable")
    forge.post("/v1/model-families/absent/stop", {})


def test_an_estimate_has_warm_and_cold_with_what_it_is_taken_from(forge: Tenant) -> None:
    forge.post("/v1/model-families/heavy/stop", {})
    body = {"prompt": PROMPT, "image": ONE_PIXEL}
    for _ in range(5):
        assert forge.post("/v1/inference/heavy", body).status_code == 200

    def selected() -> Any:
        return forge.get("/v1/models/heavy/run-estimate?steps=30").json()["selected"]

    found = eventually(lambda: (one := selected()) and one["samples"] >= 5 and one["first_cold"]["request_ms"] and one)
    assert "5 runs at this size" in found["basis"] or "runs" in found["basis"]
    assert found["first_cold"]["request_ms"]["p50"] - found["warm"]["request_ms"]["p50"] >= 2000


def test_nobody_else_is_let_in(stack: embedded.Stack) -> None:
    for path in ("/v1/models", "/v1/models/quick/reliability", "/v1/model-families/quick/status"):
        assert requests.get(stack.url + path, timeout=10).status_code == 401
