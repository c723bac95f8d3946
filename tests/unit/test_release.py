"""What is released: wheels that hold all that they need, one version everywhere, build files without known mistakes."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from api.app import create_app
from api.settings import ApiSettings
from storage.contracts import edits

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
PACKAGES = ("api", "infra", "storage", "workers")
NOT_INSTALLED = ("infra/chart/", "infra/docker/", "infra/locks/", "infra/observability/")
"""For building and running images, from a checkout."""


def _wheel(project: Path, folder: Path) -> zipfile.ZipFile:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
    ]
    done = subprocess.run([*command, str(project)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: a build leaves files beside what it builds."""
    folder = tmp_path_factory.mktemp("source")
    for package in (*PACKAGES, "client"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, folder)
    return folder


def test_the_servers_wheel_holds_every_file_of_its_packages(source: Path, tmp_path: Path) -> None:
    with _wheel(source, tmp_path) as wheel:
        held = set(wheel.namelist())
    wanted = {
        str(file.relative_to(source))
        for package in PACKAGES
        for file in (source / package).rglob("*")
        if file.is_file()
    }
    assert {name for name in wanted - held if not name.startswith(NOT_INSTALLED)} == set()
    assert {
        name for name in held if not name.startswith((*(f"{one}/" for one in PACKAGES), "darkroom_server-"))
    } == set()


def test_the_clients_wheel_holds_every_file_of_its_package(source: Path, tmp_path: Path) -> None:
    with _wheel(source / "client", tmp_path) as wheel:
        held = set(wheel.namelist())
    package = source / "client" / "darkroom"
    assert {str(file.relative_to(source / "client")) for file in package.rglob("*") if file.is_file()} <= held


def test_one_version_is_told_everywhere() -> None:
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((ROOT / "infra" / "chart" / "Chart.yaml").read_text())
    changes = (ROOT / "CHANGELOG.md").read_text()
    latest = re.search(r"^## (\S+)", changes, re.MULTILINE)
    assert latest is not None
    told_by = {
        "installed": metadata.version("darkroom-server"),
        "client": tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]["version"],
        "JavaScript": yaml.safe_load((ROOT / "client" / "javascript" / "package.json").read_text())["version"],
        "chart": chart["version"],
        "application of the chart": chart["appVersion"],
        "OpenAPI": create_app(ApiSettings(api_key="k" * 16)).version,  # type: ignore[arg-type]
        "changelog": latest[1],
    }
    assert told_by == dict.fromkeys(told_by, told)
    assert f"Records have version {edits.RECORD_VERSION}" in changes


@pytest.mark.parametrize("file", sorted((ROOT / "infra" / "docker").glob("*.Dockerfile")), ids=lambda file: file.stem)
def test_a_build_file_has_no_known_mistake(file: Path) -> None:
    done = subprocess.run([PROGRAMS / "hadolint", "--no-color", file], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_is_as_its_schema_says() -> None:
    command = [PROGRAMS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
