"""A browser, and pages of it that are watched: an error on the console or a request to elsewhere fails the test."""

import os
import shutil
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from infra import embedded
from tests.conftest import TENANTS

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

Opened = Callable[..., Page]


# Of a file, not of the session: while it is open an event loop runs on this thread, and coroutines of other tests need theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium, or CHROMIUM names it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, stack: embedded.Stack) -> Iterator[Opened]:
    """Opens the page, signed in as somebody unless that is not wanted."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []
    host = urlsplit(stack.url).hostname

    def opened(tenant: str | None = "carol", url: str = stack.url, **options: object) -> Page:
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda sent: complaints.append(sent.url) if not _is_own(sent.url, host) else None)
        page.goto(url)
        if tenant is not None:
            page.get_by_label("API key").fill(TENANTS[tenant])
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("button", name="Choose a file").or_(page.get_by_role("heading", level=1)).first.wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    # Of an answer that is an error the browser itself tells on the console.
    assert [one for one in complaints if "Failed to load resource" not in one] == []


def _is_own(url: str, host: str | None) -> bool:
    return url.startswith(("blob:", "data:")) or urlsplit(url).hostname == host
