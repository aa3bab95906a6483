"""What each page offers beside the way of a newcomer, in a real browser."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Literal

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from studio.wall_run import STEP
from tests.studio.chromium import IGNORED, WAIT_MS, draw, painting, saved
from tests.studio.conftest import Served

PIXELS = "document.querySelector('canvas.board').toDataURL()"
FRAME = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
PAGES = ("pick", "paint", "learn", "review", "export")
# What of the page can be used but lies outside the window at its left or right. What scrolls in a
# list of its own may be below the window.
OUTSIDE = """() => [...document.querySelectorAll("a, button, input, select, canvas.board")]
  .filter((one) => one.offsetParent && !one.closest(".unseen"))
  .filter((one) => {
    const { left, right } = one.getBoundingClientRect();
    return left < -1 || right > innerWidth + 1;
  }).map((one) => one.outerHTML.slice(0, 120))"""


def opened(browser: Browser, served: Served, name: str) -> Page:
    """A new tab that shows a page."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(WAIT_MS)
    page.goto(served.address)
    page.goto(f"http://127.0.0.1:{served.port}/#{name}")
    page.locator(f"main.{name} h1").wait_for()
    return page


def steps(page: Page, name: str) -> None:
    """Goes to another page by the steps above it."""
    page.get_by_role("navigation", name="Steps").get_by_text(name.title()).click()
    page.locator(f"main.{name} h1").first.wait_for()


def centre(page: Page) -> tuple[float, float]:
    """The middle of the canvas, in CSS pixels."""
    box = page.locator("canvas.board").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.long
def test_images_are_taken_out_and_candidates_of_either_order_put_in(
    browser: Browser, served: Served
) -> None:
    page = opened(browser, served, "pick")
    images, candidates = (page.locator("main.pick .grid").nth(n).locator("img") for n in (0, 1))
    expect(images).to_have_count(4)
    page.get_by_role("button", name="Take 001 out of the set").click()
    expect(images).to_have_count(3)
    assert served.studio.project.images.stems == ["000", "002", "003"]

    def shown() -> list[str]:
        expect(candidates).not_to_have_count(0)
        expect(page.locator("main.pick .wait")).to_have_count(0)
        return [str(one.get_attribute("alt")) for one in candidates.all()]

    typical = shown()
    page.get_by_role("button", name="Unlike the set first").click()
    expect(page.get_by_role("button", name="Unlike the set first")).to_have_attribute(
        "aria-pressed", "true"
    )
    farthest = shown()
    assert farthest != typical
    with page.expect_response("**/api/candidates?order=farthest&pool=512"):
        page.get_by_role("button", name="Draw more").click()
    chosen = shown()[0]
    page.get_by_role("button", name=f"Put {chosen.lower()} into").click()
    expect(images).to_have_count(4)
    assert chosen not in shown()
    source = served.studio.project.images.index.images[-1].source
    assert str(source).endswith(chosen.removeprefix("Candidate "))


@pytest.mark.long
def test_after_zoom_and_move_a_click_paints_the_pixel_under_the_pointer(
    browser: Browser, served: Served
) -> None:
    context = browser.new_context(has_touch=True)
    page = painting(context, served.address, "000", "Nothing is labeled yet")
    for key in "b1":
        page.keyboard.press(key)
    for _ in range(20):
        page.keyboard.press("[")
    x, y = centre(page)

    def under(x: float, y: float) -> str:
        page.mouse.move(x, y)
        return page.locator(".hover").inner_text()

    def size_of_a_pixel() -> float:
        near, far = (int(under(x + shift, y).split("·")[1].split(",")[0]) for shift in (0, 100))
        return 100 / max(1, far - near)

    start = under(x + 3, y + 3)
    coarse = size_of_a_pixel()
    page.mouse.move(x + 3, y + 3)
    page.mouse.wheel(0, -600)
    page.evaluate(FRAME)
    assert under(x + 3, y + 3) == start, "the wheel zooms at the pointer"
    assert size_of_a_pixel() > 1.5 * coarse
    moves: tuple[tuple[Literal["left", "right"], str], ...] = (("right", "b"), ("left", "h"))
    for button, key in moves:
        page.keyboard.press(key)
        page.mouse.move(x + 3, y + 3)
        page.mouse.down(button=button)
        page.mouse.move(x + 53, y - 47, steps=3)
        page.mouse.up(button=button)
        assert under(x + 53, y - 47) == start, "the image moves with the pointer"
        page.mouse.down(button="right")
        page.mouse.move(x + 3, y + 3, steps=3)
        page.mouse.up(button="right")
    page.keyboard.press("b")
    assert not served.studio.project.label_files.masks, "nothing is painted by that"
    page.mouse.click(x + 3, y + 3)
    mask = saved(page, served.folder)
    column, row = (int(part) for part in start.split("·")[1].split(","))
    assert np.argwhere(mask != IGNORED).tolist() == [[row, column]]

    fine = size_of_a_pixel()
    touch = context.new_cdp_session(page)
    for kind, apart in (("Start", 40), ("Move", 60), ("Move", 80), ("End", 0)):
        points = [{"x": x - apart, "y": y}, {"x": x + apart, "y": y}] if apart else []
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    page.evaluate(FRAME)
    assert size_of_a_pixel() > 1.5 * fine, "two fingers zoom"
    assert (saved(page, served.folder) != IGNORED).sum() == 1, "and paint nothing"
    page.keyboard.press("r")
    page.evaluate(FRAME)
    assert size_of_a_pixel() == coarse


@pytest.mark.long
def test_ignored_pixels_kept_ones_the_mask_s_opacity_and_a_pen(
    browser: Browser, served: Served
) -> None:
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    page.keyboard.press("b")
    bare = page.evaluate(PIXELS)
    draw(page, (0.1, 0.5), (0.9, 0.5), "1")
    draw(page, (0.4, 0.5), (0.6, 0.5), "0")
    first = saved(page, served.folder)
    assert set(np.unique(first)) == {0, IGNORED} and (first[15, 14:18] == IGNORED).all()
    page.keyboard.press("2")
    page.keyboard.press("l")
    expect(page.get_by_label("Keep what is painted")).to_be_checked()
    draw(page, (0.1, 0.5), (0.9, 0.5))
    second = saved(page, served.folder)
    assert (second[first == 0] == 0).all() and (second == 1).any()

    page.mouse.move(4, 4)
    page.get_by_label("Opacity of the mask").fill("0")
    page.evaluate(FRAME)
    assert page.evaluate(PIXELS) == bare
    x, y = centre(page)
    pen = page.context.new_cdp_session(page)
    for kind, shift in (("Pressed", 0), ("Moved", 60), ("Released", 60)):
        at = {"x": x + shift, "y": y + 120, "button": "left", "buttons": 1, "clickCount": 1}
        pen.send(
            "Input.dispatchMouseEvent",
            {"type": f"mouse{kind}", "pointerType": "pen", "force": 0.5, **at},
        )
    third = saved(page, served.folder)
    assert set(np.unique(third[third != second])) == {1}


@pytest.mark.long
def test_a_selection_grows_while_it_is_held_and_shrinks_with_shift(
    browser: Browser, served: Served
) -> None:
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    page.keyboard.press("s")
    page.keyboard.press("1")
    sizes = []
    for held in ("", "grow", "Shift"):
        if held == "Shift":
            page.keyboard.down("Shift")
        before = page.evaluate(PIXELS)
        draw(page, (0.5, 0.5), (0.5, 0.5), up=False)
        if held:
            page.wait_for_function(f"(before) => {PIXELS} !== before", arg=before)
            page.wait_for_timeout(200)  # the region and the cursor are shown
            shown = page.evaluate(PIXELS)
            page.wait_for_function(f"(shown) => {PIXELS} !== shown", arg=shown)
        page.mouse.up()
        page.keyboard.up("Shift")
        page.locator(".smartbar").wait_for()
        sizes.append(int((saved(page, served.folder) == 0).sum()))
        page.keyboard.press("Control+z")
        expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")
        expect(page.locator("#saved")).to_have_text("All saved")
    assert sizes[2] < sizes[0] < sizes[1]


@pytest.mark.long
def test_a_training_that_began_by_itself_is_stopped_and_started_by_buttons(
    browser: Browser, served: Served
) -> None:
    half = bytes(served.pixels // 2)
    assert served.save("000", half + b"\1" * len(half), '"none"').status == 204
    page = opened(browser, served, "learn")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#learning")).to_have_text("Learning: stopped")
    assert served.studio.learner._process is None, "its process has ended"
    page.get_by_role("button", name="Start learning").click()
    expect(page.locator("#learning")).to_have_text("Learned, round 1")
    expect(page.locator("main.learn .wall li").first).to_contain_text("teaches most")
    with page.expect_response("**/uncertainty?side=256"):
        page.locator("main.learn .wall a").first.hover()


@pytest.mark.long
def test_the_wall_keeps_less_at_each_threshold_and_shows_where_it_is_unsure(
    browser: Browser, walled: Served
) -> None:
    page = opened(browser, walled, "review")
    tiles = page.locator("ul.review li")
    expect(tiles).to_have_count(STEP)
    slider, counts = page.get_by_label("Threshold"), page.locator("output")
    expect(counts).to_have_text(f"{STEP} kept, 0 discarded")
    kept = []
    for step in range(4):
        slider.fill(str(step))
        number = re.match(r"(\d+) kept, (\d+) discarded", counts.inner_text())
        assert number is not None
        kept.append(int(number[1]))
        assert int(number[2]) == page.locator("ul.review li.discarded").count()
        expect(page.locator(".shares tbody tr")).to_have_count(4)
    assert kept == sorted(kept, reverse=True) and kept[-1] < STEP
    with page.expect_response("**/uncertainty?side=256"):
        tiles.first.hover()
    page.get_by_label("Error you allow, %").fill("120")
    page.get_by_label("Error you allow, %").press("Enter")
    expect(page.locator("main.review > .page > .alarm")).to_contain_text("between 0 and 100")


@pytest.mark.long
def test_labels_and_the_contact_sheet_come_from_the_page_export(
    browser: Browser, walled: Served
) -> None:
    assert walled.save("000", bytes(walled.pixels), '"none"').status == 204
    page = opened(browser, walled, "export")
    for name in ("masks", "coco"):
        with page.expect_download() as download:
            page.get_by_role("link", name=name, exact=True).click()
        with zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())) as archive:
            assert archive.namelist()
    sheet = page.locator("img.sheet")
    page.wait_for_function("(one) => one.naturalWidth > 0", arg=sheet.element_handle())
    with page.expect_download() as download:
        sheet.click()
    assert download.value.suggested_filename == "contact-sheet.png"


@pytest.mark.long
def test_all_that_can_be_used_is_within_a_window_and_a_tablet(
    browser: Browser, walled: Served
) -> None:
    page = opened(browser, walled, "pick")
    for name in PAGES:
        steps(page, name)
        for width, height in ((1280, 720), (1024, 768), (768, 1024)):
            page.set_viewport_size({"width": width, "height": height})
            page.evaluate(FRAME)
            assert page.evaluate(OUTSIDE) == [], (name, width)
            excess = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
            assert excess <= 0, (name, width)
            focused = page.evaluate("document.activeElement.tagName")
            page.keyboard.press("Tab")
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline not in ("none", ""), f"{name}: no focus is seen after {focused}"


@pytest.mark.long
def test_depth_is_shown_in_the_image_s_place_and_given_back(
    browser: Browser, served: Served
) -> None:
    folder = served.folder / "depth"
    folder.mkdir()
    (folder / "depth.toml").write_text('unit = "m"\n')
    np.save(folder / "001.npy", np.tile(np.linspace(1, 9, 32, dtype=np.float32), (32, 1)))
    page = painting(browser, served.address, "001", "Look at depth")
    expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")
    page.mouse.move(4, 4)
    page.evaluate(FRAME)
    image = page.evaluate(PIXELS)
    button = page.get_by_role("button", name="Look at depth")
    for pressed in ("true", "false"):
        page.keyboard.press("d")
        expect(button).to_have_attribute("aria-pressed", pressed)
        page.evaluate(FRAME)
        assert (page.evaluate(PIXELS) == image) == (pressed == "false")
    page.locator(".strip a", has_text="000").click()
    expect(page.locator("h1")).to_have_text("Paint Image 000")
    expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")
    expect(button).to_have_count(0)
