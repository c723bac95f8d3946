"""`make page-pictures`: pictures of the page for the documentation, of a stack that is started for them."""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from infra import embedded
from tests.conftest import PHOTOGRAPH, running_stack
from tests.page.conftest import CHROMIUM, QUIET

DOCS = Path(__file__).parents[2] / "docs"
SIZES = {"light": (1360, 900), "dark": (1360, 900), "phone": (390, 844)}


def _edited(browser: Browser, stack: embedded.Stack, key: str, kind: str) -> Page:
    width, height = SIZES[kind]
    scheme = "dark" if kind == "dark" else "light"
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1.5)  # type: ignore[arg-type]
    page.goto(stack.url)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.locator("#picker").set_input_files(PHOTOGRAPH)
    for prompt in ("turn it sepia", "give it a red border"):
        page.get_by_label("What is to change?").fill(prompt)
        page.get_by_role("button", name="Edit", exact=True).click()
        page.get_by_label("Before and after").wait_for()
        page.get_by_role("button", name="Edit this again").wait_for()
        if prompt == "turn it sepia":
            page.get_by_role("button", name="Edit this again").click()
    page.get_by_role("list", name="How it came about").wait_for()
    page.wait_for_timeout(800)
    return page


def main() -> None:
    """Take them."""
    key = "key-for-the-pictures"
    with (
        tempfile.TemporaryDirectory() as folder,
        running_stack(Path(folder), DARKROOM_API_KEY=key) as stack,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        for kind in SIZES:
            page = _edited(browser, stack, key, kind)
            page.evaluate("scrollTo(0, 0)")
            if kind == "phone":
                page.locator(".stage").evaluate("one => one.scrollIntoView()")
            page.wait_for_timeout(400)
            with Image.open(io.BytesIO(page.screenshot())) as image:
                image.convert("RGB").save(DOCS / f"page-{kind}.jpg", quality=82, optimize=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
