"""The compose file and the Dockerfiles agree with the catalog, the settings and each other."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.settings import ApiSettings
from storage.settings import StoreSettings
from workers.settings import GpuSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def test_there_is_a_profile_for_every_gpu_type_that_holds_a_model(compose: dict[str, Any]) -> None:
    known = StoreSettings().read_catalog()
    wanted = {gpu_type for model in known.models.values() for gpu_type in model.gpu_types}
    workers = {name: service for name, service in compose["services"].items() if name.startswith("worker-")}
    assert {service["environment"]["DARKROOM_GPU_TYPE"] for service in workers.values()} == wanted
    for name, service in workers.items():
        assert service["profiles"] == [name.removeprefix("worker-")] == [service["environment"]["DARKROOM_GPU_TYPE"]]


def test_no_secret_stands_in_a_file(compose: dict[str, Any]) -> None:
    secret = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|API_KEY|TOKEN|AUTH")
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if secret.search(name):
                assert re.fullmatch(r"\$\{\w+(:\?[^}]+|:-)?\}", value), f"{name} is not taken from the environment"
    assert re.findall(r"(?:--requirepass |redis://:)([^$\s]\S*)", (ROOT / "docker-compose.yml").read_text()) == []
    for line in (ROOT / ".env.example").read_text().splitlines():
        name, _, value = line.partition("=")
        if secret.search(name) and not line.startswith("#"):
            assert value in ("", '{"my-team": ""}'), line


def test_every_variable_compose_requires_is_in_the_example(compose: dict[str, Any]) -> None:
    required = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    offered = set(re.findall(r"^(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert required <= offered


def test_every_variable_a_container_gets_is_one_its_process_reads(compose: dict[str, Any]) -> None:
    read = {
        str(field.validation_alias or f"DARKROOM_{name}").upper()
        for settings in (ApiSettings, GpuSettings)
        for name, field in settings.model_fields.items()
    }
    for name in ("api", "housekeeping", *(name for name in compose["services"] if name.startswith("worker-"))):
        assert set(compose["services"][name]["environment"]) <= read | {"HF_TOKEN"}, name


def test_stores_keep_their_data_and_everything_has_a_health_check(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in ("valkey", "s3"):
        assert services[name]["volumes"][0].partition(":")[0] in compose["volumes"]
        assert "healthcheck" in services[name]
    for file in (ROOT / "infra" / "docker").glob("*.Dockerfile"):
        assert "HEALTHCHECK" in file.read_text()
    assert "--appendfsync always" in services["valkey"]["command"]
    assert "noeviction" in services["valkey"]["command"]


def test_every_dockerfile_is_used_and_runs_as_nobody_special(compose: dict[str, Any]) -> None:
    used = {service["build"]["dockerfile"] for service in compose["services"].values() if "build" in service}
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "infra" / "docker").glob("*.Dockerfile")}
    assert used == files
    for file in files:
        text = (ROOT / file).read_text()
        assert re.search(r"^USER darkroom$", text, re.MULTILINE)
        ignored = (ROOT / ".dockerignore").read_text()
        for source in re.findall(r"^COPY (\w+) \w+$", text, re.MULTILINE):
            assert f"!{source}" in ignored
