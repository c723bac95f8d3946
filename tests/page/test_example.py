"""The example frontend of the documentation, in a browser: another origin, a token of its own server, no key on the page."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, expect

from infra import embedded
from infra.children import Child
from tests.conftest import PHOTOGRAPH, TENANTS, eventually
from tests.web import free_port

ROOT = Path(__file__).parents[2]


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture
def site(stack: embedded.Stack, tmp_path: Path) -> Iterator[str]:
    """The example's server, and an API process that lets its pages in."""
    api_port, site_port = free_port(), free_port()
    origin = f"http://127.0.0.1:{site_port}"
    first = stack.children["api"]
    environment = {**first.environment, "DARKROOM_PORT": str(api_port), "DARKROOM_CORS_ORIGINS": f'["{origin}"]'}
    api = Child("cors-api", [sys.executable, "-m", "api"], environment, first.log_file.with_name("cors-api.log"))
    folder = tmp_path / "frontend"
    shutil.copytree(ROOT / "docs" / "frontend", folder)
    shutil.copy(ROOT / "client" / "javascript" / "darkroom.js", folder)
    url = f"http://127.0.0.1:{api_port}"
    own = {**os.environ, "PORT": str(site_port), "DARKROOM_URL": url, "DARKROOM_API_KEY": TENANTS["carol"]}
    with subprocess.Popen([sys.executable, "server.py"], cwd=folder, env=own, stderr=subprocess.DEVNULL) as server:
        try:
            eventually(lambda: _answers(f"{url}/health/ready") and _answers(origin))
            yield origin
        finally:
            server.terminate()
            api.stop()


def test_a_page_of_another_origin_edits_with_a_token(browser: Browser, site: str) -> None:
    page = browser.new_page()
    page.goto(site)
    page.get_by_label("Picture").set_input_files(PHOTOGRAPH)
    page.get_by_label("Instruction").fill("make it sepia")
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_role("status")).to_have_text("done", timeout=60_000)
    expect(page.locator("img")).not_to_have_js_property("naturalWidth", 0)
    assert TENANTS["carol"] not in page.content()
    page.close()
