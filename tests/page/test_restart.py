"""Promise: the page goes on by itself when the API restarts while it shows an edit."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.conftest import PHOTOGRAPH, TENANTS
from tests.faults.conftest import Victim, supervised


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with supervised(tmp_path_factory.mktemp("restarted"), DARKROOM_MODELS='["slower", "quick"]') as one:
        yield one


def test_an_edit_is_shown_to_its_end_over_a_restart(browser: Browser, victim: Victim, tmp_path: Path) -> None:
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(victim.stack.url)
    page.get_by_label("API key").fill(TENANTS["alice"])
    page.get_by_role("button", name="Sign in").click()
    page.locator("#picker").set_input_files(PHOTOGRAPH)
    page.get_by_label("Model", exact=True).select_option("slower")
    page.locator("#field-num_inference_steps").fill("40")
    page.get_by_label("What is to change?").fill("x")
    page.get_by_role("button", name="Edit", exact=True).click()
    expect(page.get_by_text(re.compile(r"Step \d+ of 40"))).to_be_visible(timeout=60_000)
    victim.signal("api", signal.SIGKILL)
    expect(page.get_by_text("Reconnecting")).to_be_visible(timeout=60_000)
    page.get_by_label("Before and after").wait_for()
    expect(page.get_by_text("Reconnecting")).to_have_count(0, timeout=60_000)
    page.close()
