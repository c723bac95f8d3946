"""The catalogue, the documentation, health."""

import subprocess
import sys
from pathlib import Path

import pytest
import requests

from api.dialects.oxen import model_shapes, shapes
from infra import embedded
from tests.conftest import Tenant, eventually


def test_a_model_tells_its_schema_under_both_names(alice: Tenant) -> None:
    model = alice.get("/api/ai/models/flux-kontext-dev").json()
    assert model["id"] == "flux-kontext-dev"
    assert model["request_schema"] == model["json_request_schema"]
    assert model["request_schema"]["required"] == ["input_image", "prompt"]
    assert model["weights"]["name"] == "kontext-mini"


def test_models_can_be_listed_and_searched(alice: Tenant) -> None:
    ids = [model["id"] for model in alice.get("/api/ai/models").json()["data"]]
    families = [
        "flux-kontext-dev",
        "flux-kontext-dev-fast",
        "flux-2-dev",
        "flux-2-dev-fp8",
        "flux-2-dev-nf4",
        "flux-2-dev-upsampling",
        "flux-2-klein-4b",
        "flux-2-klein-9b",
    ]
    assert ids == [
        *families,
        "quick",
        "slow",
        "slower",
        "hanging",
        "lethal",
        "heavy",
        "lasting",
        "bulky",
        "absent",
        "priced",
        "paced",
        "pinned",
        "large",
        "larger",
    ]
    assert len(alice.get("/api/ai/models/search?search=klein").json()["data"]) == 2
    assert alice.get("/api/ai/models/search?search=video").json() == {"object": "list", "data": []}
    assert alice.get("/api/ai/models?developer_name=nobody").json()["data"] == []
    assert alice.get("/api/ai/models?action=fine_tune").json()["data"] == [], "none can be fine-tuned"
    found = alice.get("/api/ai/models/search?search=black-forest-labs-flux-2-klein-4b").json()["data"]
    assert [(one["id"], one["endpoint"]) for one in found] == [("flux-2-klein-4b", "/images/generate")]
    live = alice.get("/api/ai/models/flux-kontext-dev?deployment_status=live").json()
    assert (live["id"], live["endpoint"]) == ("flux-kontext-dev", "/images/edit")


def test_an_unknown_model_is_said_to_be(alice: Tenant) -> None:
    answer = alice.get("/api/ai/models/nope")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].startswith(
        "Model not found: nope; there are flux-kontext-dev, flux-kontext-dev-fast"
    )


@pytest.mark.parametrize("alias", ["black-forest-labs/FLUX.1-Kontext-dev", "FLUX-KONTEXT-DEV", "flux.1-kontext-dev"])
def test_a_model_answers_to_the_names_others_give_it(alice: Tenant, tiny: str, alias: str) -> None:
    id_ = alice.enqueue(tiny, model=alias, num_inference_steps=4)
    assert alice.finished(id_)["model_name"] == "flux-kontext-dev"


def test_a_version_is_asked_for_by_its_name(alice: Tenant) -> None:
    asked = {"model": "flux-2-dev", "prompt": "a bird", "num_inference_steps": 1, "model_version": "diffusers-fp8"}
    found = alice.finished(alice.post("/api/ai/queue", asked).json()["generations"][0]["generation_id"])
    assert (found["model_name"], found["model_version"]) == ("flux-2-dev-fp8", "diffusers-fp8")
    assert found["receipt"]["placement"].startswith("fp8")
    refused = alice.post("/api/ai/queue", {**asked, "model_version": "3"})
    assert (refused.status_code, refused.json()["error"]["field"]) == (404, "model_version")


def test_a_models_licence_is_said_wherever_it_is_listed(alice: Tenant) -> None:
    for model in alice.get("/api/ai/models").json()["data"]:
        assert model["licence"]
        assert isinstance(model["non_commercial"], bool)


def test_answers_are_what_openapi_says(alice: Tenant, tiny: str) -> None:
    body = {"model": "quick", "prompt": "x", "input_image": tiny}
    shapes.Enqueued.model_validate(alice.post("/api/ai/queue", body).json())
    id_ = alice.enqueue(tiny)
    shapes.GenerationAnswer.model_validate(alice.get(f"/api/ai/queue/{id_}").json())
    shapes.GenerationAnswer.model_validate(alice.finished(id_))
    shapes.GenerationList.model_validate(alice.get("/api/ai/queue?status=succeeded").json())
    shapes.Cancelled.model_validate(alice.delete(f"/api/ai/queue/{id_}").json())
    shapes.Edited.model_validate(alice.post("/api/ai/images/edit", body).json())
    model_shapes.ModelList.model_validate(alice.get("/api/ai/models").json())
    model_shapes.ModelAnswer.model_validate(alice.get("/api/ai/models/quick").json())
    shapes.Problem.model_validate(alice.get("/api/ai/queue/none").json())


def test_openapi_names_every_route_and_its_bodies(stack: embedded.Stack) -> None:
    spec = requests.get(f"{stack.url}/openapi.json", timeout=10).json()
    routes = {f"{method.upper()} {path}" for path, methods in spec["paths"].items() for method in methods}
    assert {
        "POST /api/ai/queue",
        "GET /api/ai/queue",
        "GET /api/ai/queue/{generation_id}",
        "DELETE /api/ai/queue/{generation_id}",
        "GET /api/events",
        "POST /api/ai/images/edit",
        "GET /api/ai/models",
        "GET /api/ai/models/{model_id}",
    } <= routes
    assert spec["paths"]["/api/ai/queue"]["post"]["security"] == [{"HTTPBearer": []}]
    bodies = spec["paths"]["/api/ai/queue"]["post"]["requestBody"]["content"]
    assert set(bodies) == {"application/json", "multipart/form-data"}


@pytest.mark.parametrize("path", ["/", "/health/live", "/health/ready", "/docs"])
def test_what_needs_no_key(stack: embedded.Stack, path: str) -> None:
    assert requests.get(stack.url + path, timeout=10).status_code == 200


def test_a_placement_is_told_as_a_sum_for_each_gpu_type(alice: Tenant) -> None:
    answer = alice.get("/api/ai/models/flux-2-dev/placement")
    found = model_shapes.PlacementList.model_validate(answer.json())
    assert {one.gpu_type for one in found.placements} >= {"cpu", "h100", "b300"}
    for one in found.placements:
        assert one.total_gb == pytest.approx(max(one.phases_gb.values(), default=0), abs=0.02) or one.placement is None
    assert found.stand_in
    by_gpu = {one.gpu_type: one for one in found.placements}
    assert by_gpu["rtx-4090"].placement == "bf16, 52 of 56 layers streamed, text encoder streamed", (
        "the published weights'"
    )
    assert by_gpu["cpu"].placement is None
    only = alice.get("/api/ai/models/flux-2-dev/placement?gpu_type=h100&profile=fast").json()
    assert only["model"] == "flux-2-dev-fp8"
    assert [(one["gpu_type"], one["placement"]) for one in only["placements"]] == [
        ("h100", "fp8, resident, step cache")
    ]


def test_a_profile_is_asked_for_by_its_name(alice: Tenant) -> None:
    asked = {"model": "flux-2-dev", "prompt": "a bird", "num_inference_steps": 1, "profile": "fast"}
    found = alice.finished(alice.post("/api/ai/queue", asked).json()["generations"][0]["generation_id"])
    assert found["model_name"] == "flux-2-dev-fp8"
    assert found["receipt"]["profile"] == "fast"
    exact = alice.finished(
        alice.post("/api/ai/queue", {**asked, "profile": "exact"}).json()["generations"][0]["generation_id"]
    )
    assert exact["receipt"]["profile"] == "exact"
    refused = alice.post("/api/ai/queue", {**asked, "model": "flux-2-klein-4b"})
    assert (refused.status_code, refused.json()["error"]["field"]) == (400, "profile")
    assert "profile must be one of exact for flux-2-klein-4b" in refused.json()["error"]["message"]
    told = alice.get("/api/ai/models/flux-2-dev/estimate?profile=fast").json()
    assert (told["model"], told["profile"]) == ("flux-2-dev-fp8", "fast")


def test_a_gpu_type_that_is_not_listed_is_refused(alice: Tenant) -> None:
    answer = alice.get("/api/ai/models/flux-2-dev/placement?gpu_type=h1000")
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("gpu_type must be one of cpu, rtx-4070")


def test_the_fleet_is_told(alice: Tenant, tiny: str) -> None:
    assert alice.finished(alice.enqueue(tiny))["status"] == "succeeded"

    def worker_of() -> model_shapes.Worker:
        (found,) = model_shapes.Fleet.model_validate(alice.get("/api/ai/fleet").json()).workers
        return found

    worker = worker_of()
    assert worker.gpu_type == "cpu"
    assert eventually(lambda: worker_of().models["quick"]["state"] == "warm")
    command = [str(Path(sys.executable).parent / "darkroom"), "--url", alice.url, "--key", alice.key, "fleet"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[0].split()[:2] == [worker.name, "cpu"]


def test_the_fleet_tells_how_many_edits_wait_for_a_model(alice: Tenant, tiny: str) -> None:
    ids = [alice.enqueue(tiny, model="flux-2-dev", gpu_type="h100") for _ in range(2)]
    assert alice.get("/api/ai/fleet").json()["queued"]["flux-2-dev"] == 2
    assert alice.get(f"/api/ai/queue/{ids[0]}").json()["waiting_for"] == {"reason": "no_worker", "percent": None}
    for id_ in ids:
        alice.delete(f"/api/ai/queue/{id_}")
    assert "flux-2-dev" not in alice.get("/api/ai/fleet").json()["queued"]


def test_work_is_pinned_to_a_gpu_type(alice: Tenant, tiny: str) -> None:
    asked = {"model": "quick", "prompt": "x", "input_image": tiny}
    here = alice.post("/api/ai/queue", {**asked, "gpu_type": "cpu"}).json()
    assert here["waiting_for_worker"] is False
    found = alice.finished(here["generations"][0]["generation_id"])
    assert found["receipt"]["gpu_type"] == found["gpu_type"] == "cpu"
    elsewhere = alice.post("/api/ai/queue", {**asked, "model": "pinned", "gpu_type": "h100"}).json()
    assert elsewhere["waiting_for_worker"] is True
    id_ = elsewhere["generations"][0]["generation_id"]
    assert alice.get(f"/api/ai/queue/{id_}?wait=1").json()["status"] == "queued"
    alice.delete(f"/api/ai/queue/{id_}")


@pytest.mark.parametrize(
    ("gpu_type", "said"),
    [
        ("h1000", "gpu_type must be one of cpu, rtx-4070"),
        ("h100", "gpu_type: quick is not served on h100, but on cpu"),
    ],
)
def test_a_gpu_type_that_can_never_run_it_is_refused(alice: Tenant, tiny: str, gpu_type: str, said: str) -> None:
    asked = {"model": "quick", "prompt": "x", "input_image": tiny, "gpu_type": gpu_type}
    refused = alice.post("/api/ai/queue", asked)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith(said)


def test_the_command_line_prints_the_plan(alice: Tenant) -> None:
    command = [str(Path(sys.executable).parent / "darkroom"), "--url", alice.url, "--key", alice.key]
    plan = [*command, "plan", "black-forest-labs/FLUX.2-dev", "--gpu", "h100"]
    told = subprocess.run(plan, capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[0].split() == [
        "h100",
        "85",
        "GB",
        *["bf16,", "resident,", "text", "encoder", "streamed"],
    ]
    assert "80 GB = the most of load 67.0" in " ".join(told.split())
    assert told.splitlines()[-1] == "This service loads a small stand-in; the sums are of the published weights."
