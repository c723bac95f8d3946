"""What people do on the page: sign in, edit, mask, chain, compare, cancel, look back."""

import base64
import io
import re
from pathlib import Path

import pytest
import requests
from PIL import Image
from playwright.sync_api import Locator, Page, expect

import darkroom
from infra import embedded
from tests.conftest import PHOTOGRAPH, TENANTS
from tests.page.conftest import Opened


def _edit(page: Page, prompt: str = "turn it sepia", *, model: str | None = "quick", **fields: str) -> None:
    """Fill the form in and send it."""
    if model:
        page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_label("What is to change?").fill(prompt)
    for name, value in fields.items():
        _field(page, name).fill(value)
    page.get_by_role("button", name=re.compile("^Edit")).first.click()


def _field(page: Page, name: str) -> Locator:
    return page.locator(f"#field-{name}")


def _choose(page: Page, file: Path = PHOTOGRAPH) -> None:
    page.locator("#picker").set_input_files(file)
    page.get_by_alt_text(re.compile("^Picture 1")).wait_for()


@pytest.mark.parametrize("name", ["notes.txt", "notes.jpg"])
def test_a_file_that_is_no_picture_is_refused_when_it_is_chosen(open_page: Opened, tmp_path: Path, name: str) -> None:
    others = [tmp_path / name, tmp_path / f"more {name}"]
    for other in others:
        other.write_text("only text")
    page = open_page()
    page.locator("#picker").set_input_files([PHOTOGRAPH, *others])
    expect(page.get_by_role("alert")).to_contain_text(re.compile(f"{name} cannot be edited"))
    expect(page.get_by_alt_text(re.compile("^Picture"))).to_have_count(1)
    expect(page.get_by_alt_text("Picture 1: astronaut.jpg")).to_be_visible()


def _facts(page: Page) -> dict[str, str]:
    return {
        row.locator("dt").inner_text(): row.locator("dd").inner_text() for row in page.locator(".facts > div").all()
    }


def test_a_browser_gets_the_page_and_a_program_gets_json(stack: embedded.Stack) -> None:
    seen = requests.get(stack.url, headers={"Accept": "text/html,application/xhtml+xml"}, timeout=10)
    assert seen.headers["content-type"].startswith("text/html")
    policy = seen.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    told = requests.get(stack.url, timeout=10)
    assert told.json()["service"] == "darkroom"
    for path in ("/playground/../settings.py", "/playground/__init__.py", "/playground/nothing.js"):
        assert requests.get(stack.url + path, timeout=10).status_code == 404


def test_a_wrong_key_is_told_and_a_right_one_signs_in(open_page: Opened) -> None:
    page = open_page(None)
    page.get_by_label("API key").fill("not-a-key-of-anybody")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not known")
    page.get_by_label("API key").fill(TENANTS["carol"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Use the sample")).to_be_visible()
    assert TENANTS["carol"] not in page.evaluate(
        "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])"
    )


def test_a_link_signs_in_once_and_leaves_the_address(open_page: Opened, stack: embedded.Stack) -> None:
    with darkroom.Client(stack.url, TENANTS["carol"]) as client:
        link = f"{stack.url}/#sign-in={client.token('page')}"
    page = open_page(None, url=link)
    expect(page.get_by_role("button", name="Use the sample")).to_be_visible()
    assert "sign-in" not in page.url
    again = open_page(None, url=link)
    expect(again.get_by_role("alert")).to_contain_text("used before")


def test_a_link_of_another_tenant_begins_with_nothing_of_the_one_before(
    open_page: Opened, stack: embedded.Stack
) -> None:
    page = open_page("carol")
    _choose(page)
    page.get_by_label("What is to change?").fill("carol's own")
    with darkroom.Client(stack.url, TENANTS["bob"]) as client:
        link = f"location.hash = 'sign-in={client.token('page')}'"
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.evaluate(link)
    page.wait_for_function("!location.hash.includes('sign-in')")
    expect(page.get_by_label("What is to change?")).to_have_value("carol's own")
    page.once("dialog", lambda dialog: dialog.accept())
    page.evaluate(link)
    expect(page.get_by_label("What is to change?")).to_have_value("")
    expect(page.get_by_role("button", name="Use the sample")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="bob")).to_be_visible()


def test_what_was_being_made_is_there_again_after_signing_in_anew(open_page: Opened, stack: embedded.Stack) -> None:
    with darkroom.Client(stack.url, TENANTS["carol"]) as client:
        page = open_page(None, url=f"{stack.url}/#sign-in={client.token('page')}")
        page.get_by_label("What is to change?").fill("not to be lost")
        page.route(
            "**/api/ai/queue**", lambda route: route.fulfill(status=401, json={"error": {"code": "unauthenticated"}})
        )
        page.get_by_role("link", name="History").click()
        expect(page.get_by_role("alert")).to_contain_text("You were signed out")
        page.unroute("**/api/ai/queue**")
        page.evaluate(f"location.hash = 'sign-in={client.token('page')}'")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    page.get_by_role("link", name="Edit").click()
    expect(page.get_by_label("What is to change?")).to_have_value("not to be lost")


def test_more_tabs_than_a_browser_opens_connections_work_side_by_side(open_page: Opened) -> None:
    page = open_page()
    for _ in range(7):
        another = page.context.new_page()
        another.goto(page.url)
        another.get_by_label("API key").fill(TENANTS["carol"])
        another.get_by_role("button", name="Sign in").click()
        expect(another.get_by_role("button", name="Use the sample")).to_be_visible()
        # As a browser says it of a tab that is not looked at; here all of them are.
        another.evaluate("Object.defineProperty(document, 'hidden', { value: true })")
        another.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_three_clicks_make_a_picture_and_the_slider_compares(open_page: Opened) -> None:
    page = open_page()
    page.get_by_role("button", name="Use the sample").click()
    page.get_by_role("button", name="turn it sepia").click()
    page.get_by_role("button", name="Edit", exact=True).click()
    slider = page.get_by_label("Before and after")
    slider.wait_for()
    for image in page.locator(".slider img").all():
        expect(image).to_have_js_property("complete", True)
        expect(image).not_to_have_js_property("naturalWidth", 0)
    slider.focus()
    before = int(slider.input_value())
    page.keyboard.press("ArrowRight")
    assert int(slider.input_value()) == before + 1
    facts = _facts(page)
    assert facts["Seed"].isdecimal()
    assert re.match(r"\d+ × \d+", facts["Size"])
    assert facts["Kept for"].startswith("6 d")
    assert facts["Cost"] == "$0.00"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.path().stat().st_size > 0
    assert re.fullmatch(r"[0-9a-f-]{36}\.webp", download.value.suggested_filename)
    page.get_by_role("button", name="Copy link").click()
    link = page.evaluate("navigator.clipboard.readText()")
    assert requests.get(link, timeout=10).headers["content-type"] == "image/webp"


def test_a_result_is_edited_again_and_its_ancestors_are_stepped_back_to(open_page: Opened) -> None:
    page = open_page()
    _choose(page)
    _edit(page, "first change")
    page.get_by_role("button", name="Edit this again").click()
    _edit(page, "second change")
    lineage = page.get_by_role("list", name="How it came about")
    expect(lineage.get_by_role("listitem")).to_have_count(2)
    lineage.get_by_role("button", name="first change").click()
    expect(page.locator("figcaption .prompt")).to_have_text("first change")


def test_settings_are_recalled_with_the_seed_or_without(open_page: Opened) -> None:
    page = open_page()
    _choose(page)
    _edit(page, "remember me", seed="77", num_inference_steps="9")
    page.get_by_role("button", name="Recall settings").wait_for()
    assert _facts(page)["Seed"] == "77"
    page.get_by_label("What is to change?").fill("something else")
    _field(page, "seed").fill("1")
    page.get_by_role("button", name="Recall settings").click()
    expect(page.get_by_label("What is to change?")).to_have_value("remember me")
    assert (
        _field(page, "seed").input_value(),
        _field(page, "num_inference_steps").input_value(),
    ) == ("77", "9")
    page.get_by_role("button", name="… but the seed").click()
    expect(_field(page, "seed")).to_have_value("")
    # A shape that follows from the picture is no setting.
    assert (_field(page, "width").input_value(), _field(page, "aspect_ratio").input_value()) == ("", "")
    page.get_by_role("button", name="Another seed").click()
    expect(page.locator(".facts dd").first).not_to_have_text("77")


def test_pictures_are_pasted_ordered_and_removed(open_page: Opened, tmp_path: Path) -> None:
    page = open_page()
    page.get_by_label("Model", exact=True).select_option("quick")
    _choose(page)
    encoded = base64.b64encode(PHOTOGRAPH.read_bytes()).decode()
    page.evaluate(
        """(encoded) => {
            const bytes = Uint8Array.from(atob(encoded), (one) => one.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "pasted.jpg", { type: "image/jpeg" }));
            dispatchEvent(Object.assign(new Event("paste"), { clipboardData: data }));
        }""",
        encoded,
    )
    expect(page.get_by_alt_text("Picture 2: pasted.jpg")).to_be_visible()
    page.get_by_role("button", name="Move picture 2 before").click()
    expect(page.get_by_alt_text("Picture 1: pasted.jpg")).to_be_visible()
    page.get_by_role("button", name="Remove picture 2").click()
    expect(page.get_by_alt_text(re.compile("^Picture 2"))).to_have_count(0)


def test_a_mask_is_painted_over_the_picture_and_sent(open_page: Opened, stack: embedded.Stack) -> None:
    page = open_page()
    _choose(page)
    page.get_by_role("button", name="Paint a mask").click()
    canvas = page.get_by_label(re.compile("^Mask"))
    box = canvas.bounding_box()
    assert box
    use = page.get_by_role("button", name="Use this mask")
    expect(use).to_be_disabled()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.6, steps=4)
    page.mouse.up()
    expect(page.locator(".brush")).to_have_count(0)
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    before = page.locator(".brush").bounding_box()
    page.keyboard.press("Shift+ArrowRight")
    after = page.locator(".brush").bounding_box()
    assert before
    assert after
    # A user who moves it by keys sees where it is.
    assert after["x"] - before["x"] == pytest.approx(0.02 * box["width"], abs=1)
    use.click()
    page.get_by_role("button", name="Change the mask").click()
    # What was painted is there to go on with.
    expect(use).to_be_enabled()
    page.get_by_label(re.compile("^Mask")).focus()
    page.keyboard.press("Space")
    use.click()
    expect(page.get_by_role("button", name="Change the mask")).to_be_visible()
    _edit(page, "with a mask", model=None)
    page.get_by_label("Before and after").wait_for()
    with darkroom.Client(stack.url, TENANTS["carol"]) as client:
        (made,) = client.generations(status="all", search="with a mask", limit=1)
    with (
        Image.open(io.BytesIO(requests.get(made.raw["mask_image"], timeout=10).content)) as mask,
        Image.open(PHOTOGRAPH) as photograph,
    ):
        assert mask.size == photograph.size
        assert 0.005 < sum(mask.convert("L").histogram()[200:]) / (mask.width * mask.height) < 0.5
        # Of the stroke that was painted first, and of where nothing was.
        assert mask.convert("L").getpixel((int(0.45 * mask.width), int(0.45 * mask.height))) == 255
        assert mask.convert("L").getpixel((int(0.05 * mask.width), int(0.9 * mask.height))) == 0


def test_seeds_are_compared_side_by_side_as_one_group(open_page: Opened, stack: embedded.Stack) -> None:
    page = open_page()
    _choose(page)
    page.get_by_label("Seeds", exact=True).check()
    page.get_by_label("How many").fill("3")
    _edit(page, "compare these", seed="500")
    page.get_by_role("button", name="Download as one picture").wait_for()
    assert page.locator(".grid p").all_inner_texts() == ["seed 500", "seed 501", "seed 502"]
    with darkroom.Client(stack.url, TENANTS["carol"]) as client:
        made = list(client.generations(status="all", search="compare these", limit=3))
    assert {one.seed for one in made} == {500, 501, 502}
    assert len({one.raw["group"] for one in made}) == 1
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as one picture").click()
    with Image.open(download.value.path()) as image:
        assert image.width > 2 * image.height / 3
    page.get_by_role("button", name="Open seed 501").click()
    expect(page.locator(".facts dd").first).to_have_text("501")
    page.get_by_role("button", name="Back to the comparison").click()
    expect(page.locator(".grid")).to_be_visible()


def test_a_running_edit_shows_its_steps_and_is_cancelled(open_page: Opened) -> None:
    page = open_page()
    _choose(page)
    _edit(page, "cancel me", model="slower", num_inference_steps="40")
    expect(page.get_by_text(re.compile(r"Step \d+ of 40"))).to_be_visible()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_role("heading", name="Cancelled")).to_be_visible()


def test_what_the_service_refuses_is_shown_beside_the_field(open_page: Opened) -> None:
    page = open_page()
    _choose(page)
    _field(page, "seed").evaluate("one => { one.removeAttribute('min'); }")
    _edit(page, "x", seed="-1")
    expect(page.get_by_role("alert")).to_contain_text("seed")
    expect(_field(page, "seed")).to_have_attribute("aria-invalid", "true")
    _field(page, "seed").fill("")
    _edit(page, "nudify")
    expect(page.get_by_role("heading", name="Refused by a filter")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("content_filtered")


def test_history_is_searched_opened_and_erased_and_live(open_page: Opened, stack: embedded.Stack) -> None:
    with darkroom.Client(stack.url, TENANTS["carol"]) as client:
        client.edit(PHOTOGRAPH, "a lighthouse at noon", model="quick")
        page = open_page()
        page.get_by_role("link", name="History").click()
        page.get_by_label("Search").fill("LIGHTHOUSE")
        cards = page.locator(".cards .card")
        expect(cards).to_have_count(1)
        client.edit(PHOTOGRAPH, "a lighthouse at night", model="quick")
        expect(cards).to_have_count(2)
    cards.filter(has_text="noon").get_by_role("button", name="Erase").click()
    page.get_by_role("button", name="Erase for good?").click()
    expect(cards).to_have_count(1)
    cards.get_by_role("link").click()
    expect(page.locator("figcaption .prompt")).to_have_text("a lighthouse at night")
    page.go_back()
    expect(page.get_by_role("heading", name="History")).to_be_visible()


def test_history_shows_all_of_what_came_in_a_burst(open_page: Opened, stack: embedded.Stack) -> None:
    with darkroom.Client(stack.url, TENANTS["carol"]) as client:
        page = open_page()
        page.get_by_role("link", name="History").click()
        page.get_by_label("Search").fill("in a burst")
        cards = page.locator(".cards .card")
        client.enqueue(PHOTOGRAPH, "the first in a burst", model="quick")
        expect(cards).to_have_count(1)
        page.context.set_offline(True)
        # A page has 48.
        for number in range(60):
            client.enqueue(PHOTOGRAPH, f"in a burst {number}", model="quick")
        page.context.set_offline(False)
    expect(cards).to_have_count(48, timeout=30_000)
    page.get_by_role("button", name="Show more").click()
    expect(cards).to_have_count(61)


def test_fleet_and_usage_say_what_there_is(open_page: Opened) -> None:
    page = open_page()
    page.get_by_role("link", name="Fleet").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="quick", exact=True))
    expect(row).to_be_visible()
    expect(page.locator(".workers .card").first).to_contain_text("cpu")
    page.get_by_role("link", name="Usage").click()
    expect(page.get_by_role("heading", name="Usage")).to_be_visible()
    expect(page.get_by_text("Spent")).to_be_visible()


def test_everything_is_done_by_keyboard_alone(open_page: Opened) -> None:
    page = open_page()

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.innerText || document.activeElement.id") == name:
                return
        raise AssertionError(f"{name} is not reached")

    tab_to("Use the sample")
    page.keyboard.press("Enter")
    page.get_by_alt_text(re.compile("^Picture 1")).wait_for()
    tab_to("prompt")
    page.keyboard.type("make it black and white")
    page.keyboard.press("Control+Enter")
    page.get_by_label("Before and after").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_stands_in_the_way_of_a_screen_reader(open_page: Opened, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(color_scheme=scheme, bypass_csp=True)
    _choose(page)
    _edit(page)
    page.get_by_label("Before and after").wait_for()
    page.locator("summary", has_text="API").click()
    page.locator("summary", has_text="More settings").click()
    for name in ("Edit", "History", "Fleet", "Usage"):
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        page.wait_for_timeout(300)
        found = Axe().run(page).response["violations"]
        serious = [
            (one["id"], one["nodes"][0]["html"][:120]) for one in found if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], name


def test_the_page_fits_a_phone_and_double_size(open_page: Opened) -> None:
    for options in (
        {"viewport": {"width": 360, "height": 740}, "has_touch": True},
        {"viewport": {"width": 680, "height": 450}},
    ):
        page = open_page(**options)
        for name in ("Edit", "History", "Fleet", "Usage"):
            page.get_by_role("navigation").get_by_role("link", name=name).click()
            page.wait_for_timeout(200)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_the_documentation_of_the_api_comes_from_the_api(open_page: Opened, stack: embedded.Stack) -> None:
    page = open_page(tenant=None, url=f"{stack.url}/docs")
    page.get_by_text("/api/ai/queue", exact=True).first.wait_for()
