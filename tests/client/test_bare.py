"""The client installs and runs where nothing of the service is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra import embedded
from tests.conftest import PHOTOGRAPH, TENANTS

CLIENT = Path(__file__).parents[2] / "client"
NOT_THERE = ("torch", "fastapi", "celery", "boto3", "redis", "diffusers")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the client alone."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    source = tmp_path_factory.mktemp("client") / "client"
    # A build leaves files beside what it builds.
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheels = tmp_path_factory.mktemp("wheel")
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    install = [*pip, "--python", str(folder), "install", "--no-compile", str(next(wheels.iterdir()))]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "bin"


def test_an_edit_is_made_and_nothing_of_the_service_is_installed(
    bare: Path, stack: embedded.Stack, tmp_path: Path
) -> None:
    command = [str(bare / "darkroom"), "--url", stack.url, "--key", TENANTS["frank"]]
    edit = [*command, "edit", str(PHOTOGRAPH), "make it sepia", "-m", "quick", "-o", "a.webp"]
    subprocess.run(edit, check=True, cwd=tmp_path)
    assert (tmp_path / "a.webp").stat().st_size > 0
    look = f"import importlib.util as u; print([n for n in {NOT_THERE!r} if u.find_spec(n)])"
    found = subprocess.run([str(bare / "python"), "-c", look], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout == "[]\n"
