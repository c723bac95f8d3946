"""The compose file and the Dockerfiles agree with the catalog, the settings and each other."""

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from api.settings import ApiSettings
from storage.settings import StoreSettings
from workers.settings import GpuSettings, WorkerSettings

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


def test_prometheus_asks_every_process_that_there_may_be(compose: dict[str, Any]) -> None:
    asked = yaml.safe_load((ROOT / "infra" / "observability" / "prometheus.yml").read_text())
    (job,) = asked["scrape_configs"]
    targets = {(name, one["port"]) for one in job["dns_sd_configs"] for name in one["names"]}
    ours = {name for name, one in compose["services"].items() if "DARKROOM_METRICS_PORT" in one.get("environment", {})}
    first = 9464
    # Of a machine with eight GPUs each worker has a port.
    expected = {(name, first + n) for name in ours for n in range(8 if name.startswith("worker-") else 1)}
    assert targets == expected


def test_no_secret_stands_in_a_file(compose: dict[str, Any]) -> None:
    secret = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|API_KEY|TOKEN|AUTH")
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if secret.search(name):
                # Without a value it is the one of .env.
                from_env = value is None or re.fullmatch(r"\$\{\w+(:\?[^}]+|:-)?\}", value)
                assert from_env, f"{name} is not taken from the environment"
    assert re.findall(r"(?:--requirepass |redis://:)([^$\s]\S*)", (ROOT / "docker-compose.yml").read_text()) == []
    for line in (ROOT / ".env.example").read_text().splitlines():
        name, _, value = line.partition("=")
        if secret.search(name) and not line.startswith("#"):
            assert value == "", line


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
        assert set(compose["services"][name]["environment"]) <= read | OF_LIBRARIES | OF_EACH_GPU, name


OF_LIBRARIES = {"HF_TOKEN", "OTEL_EXPORTER_OTLP_HEADERS"}
"""What libraries read by themselves."""

OF_EACH_GPU = {"DARKROOM_GPUS", "DARKROOM_TEXT_ENCODERS"}
"""What `infra.each_gpu` reads, which starts workers."""

OF_THE_IMAGE = {
    "DARKROOM_HOST", "DARKROOM_PORT", "DARKROOM_WORKER_NAME", "DARKROOM_WEIGHTS_DIR", "DARKROOM_COMPILE_CACHE",
}  # fmt: skip
"""What a container's own files and ports decide."""


def test_every_setting_of_a_process_can_be_made_in_the_example(compose: dict[str, Any]) -> None:
    of_process = {"api": ApiSettings, "housekeeping": WorkerSettings, "worker-h100": GpuSettings}
    for name, settings in of_process.items():
        known = {
            str(field.validation_alias or f"DARKROOM_{one}").upper() for one, field in settings.model_fields.items()
        }
        assert known - OF_THE_IMAGE == set(compose["services"][name]["environment"]) - OF_LIBRARIES - OF_EACH_GPU, name
    assert set(compose["services"]["worker-h100"]["environment"]) >= OF_EACH_GPU


def test_files_that_settings_name_are_where_containers_see_them(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if name not in ("valkey", "s3"):
            assert "${DARKROOM_CONFIG:-./config}:/config:ro" in service["volumes"], name


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
        assert re.search(r"^USER 10001$", text, re.MULTILINE)
        ignored = (ROOT / ".dockerignore").read_text()
        for source in re.findall(r"^COPY (\w+) \w+$", text, re.MULTILINE):
            assert f"!{source}" in ignored


LOCKS = {"api": "api", "housekeeping": "housekeeping", "worker": "gpu"}
"""Images, and the extra that each is made of."""

PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+) \\$", re.MULTILINE)


def _pins(lock: str) -> dict[str, str]:
    text = (ROOT / "infra" / "locks" / f"{lock}.txt").read_text()
    return {canonicalize_name(found["name"]): found["version"] for found in PIN.finditer(text)}


def _required(extra: str) -> list[Requirement]:
    """What an extra asks for, with what it takes of other extras of ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [Requirement(one) for one in (*project["dependencies"], *project["optional-dependencies"][extra])]
    for one in list(found):
        if one.name == project["name"]:
            found.remove(one)
            found += [more for inner in one.extras for more in _required(inner)]
    return found


@pytest.mark.parametrize("extra", LOCKS.values())
def test_a_lock_has_what_the_project_asks_for_in_versions_that_it_allows(extra: str) -> None:
    pins = _pins(extra)
    for wanted in _required(extra):
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), wanted
    assert len(pins) > 20


@pytest.mark.parametrize("extra", LOCKS.values())
def test_every_pin_has_its_hashes_and_no_lock_names_a_place(extra: str) -> None:
    text = (ROOT / "infra" / "locks" / f"{extra}.txt").read_text()
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(_pins(extra))
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text
    assert "/" not in re.sub(r"#.*", "", text)


def test_images_agree_on_what_they_share() -> None:
    locks = [_pins(extra) for extra in LOCKS.values()]
    for first, second in itertools.combinations(locks, 2):
        assert {name: first[name] for name in first.keys() & second} == {
            name: second[name] for name in first.keys() & second
        }


@pytest.mark.parametrize(("image", "extra"), LOCKS.items())
def test_an_image_installs_its_lock_and_nothing_else(image: str, extra: str) -> None:
    text = (ROOT / "infra" / "docker" / f"{image}.Dockerfile").read_text()
    installs = re.findall(r"pip install (.*?)(?: &&|$)", text, re.MULTILINE)
    assert installs == [f"--require-hashes -r infra/locks/{extra}.txt", "--no-deps ."]


def test_a_worker_can_compile_and_keeps_what_it_compiled(compose: dict[str, Any]) -> None:
    text = (ROOT / "infra" / "docker" / "worker.Dockerfile").read_text()
    assert re.search(r"apt-get install .*\bgcc\b", text)
    assert "mkdir /weights /cache && chown darkroom /weights /cache" in text
    assert "DARKROOM_COMPILE_CACHE=/cache" in text
    for name, service in compose["services"].items():
        if name.startswith("worker-"):
            assert "compile-cache:/cache" in service["volumes"]
            assert service["tmpfs"] == ["/tmp:exec"]
    assert "compile-cache" in compose["volumes"]


def test_the_worker_image_has_a_torchvision_of_its_torch() -> None:
    pins = _pins("gpu")
    # torchvision 0.N belongs to torch 2.(N-15).
    assert int(pins["torchvision"].split(".")[1]) - 15 == int(pins["torch"].split(".")[1])
    assert "+" not in pins["torch"], "PyPI's own build"
