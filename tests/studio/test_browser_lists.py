"""What the page draws and asks for in a real browser: no more than a stroke or the window needs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from studio.project import Project
from tests.studio.chromium import WAIT_MS, draw, painting
from tests.studio.conftest import CARDS, serving
from training.__main__ import main as training_command

# Notes the share of the canvas, or of the mask's colors, that is drawn again.
NOTE_AREAS = """() => {
  globalThis.shares = [];
  const note = (context, width, height) =>
    globalThis.shares.push((width * height) / (context.canvas.width * context.canvas.height));
  const clear = CanvasRenderingContext2D.prototype.clearRect;
  CanvasRenderingContext2D.prototype.clearRect = function (x, y, width, height) {
    note(this, width, height);
    clear.call(this, x, y, width, height);
  };
  const put = OffscreenCanvasRenderingContext2D.prototype.putImageData;
  OffscreenCanvasRenderingContext2D.prototype.putImageData = function (data, ...rest) {
    note(this, data.width, data.height);
    put.call(this, data, ...rest);
  };
}"""
MANY = 400  # images, of which a window shows few
PIXELS = "document.querySelector('canvas.board').toDataURL()"


@pytest.fixture(scope="module")
def many(tiny_weights: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of MANY images. Do not change it."""
    folder = tmp_path_factory.mktemp("many") / "set"
    training_command(
        ["sample", "--generator", str(tiny_weights[0]), "--out", str(folder), "--count",
         str(MANY), "--candidates", str(MANY), "--choose", "farthest"],
        standalone_mode=False,
    )  # fmt: skip
    return folder


@pytest.mark.long
def test_a_stroke_draws_no_more_than_its_surroundings_and_leaves_what_a_whole_drawing_shows(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    opened = Project(project)
    opened.set_classes(CARDS)
    opened.save_mask("000", bytes(opened.size[0] * opened.size[1]), "none")
    with serving(tiny_weights[0], project) as served:
        page = painting(browser, served.address, "000", "Every pixel is labeled")
        page.keyboard.press("b")
        page.keyboard.press("2")
        page.evaluate("new Promise(requestAnimationFrame)")
        page.evaluate(NOTE_AREAS)
        draw(page, (0.3, 0.4), (0.42, 0.47), up=False)
        page.evaluate("new Promise(requestAnimationFrame)")
        shares = page.evaluate("globalThis.shares")
        assert len(shares) >= 2 and max(shares) < 0.15
        page.mouse.up()
        expect(page.locator("#saved")).to_have_text("All saved")
        for keys in ("", "g", "Control+z", "Control+y"):  # gaps shown; a step back, and forth
            if keys:
                page.keyboard.press(keys)
            draw(page, (0.6, 0.4), (0.6, 0.6))
            expect(page.locator("#saved")).to_have_text("All saved")
            page.mouse.move(4, 4)
            page.evaluate("new Promise(requestAnimationFrame)")
            parts = page.evaluate(PIXELS)
            page.keyboard.press("r")
            page.evaluate("new Promise(requestAnimationFrame)")
            assert parts == page.evaluate(PIXELS), f"after {keys!r}"


def settle(page: Page, asked: set[str]) -> None:
    """Waits until nothing new has been asked for in half a second. The shared worker's script is a
    request without an end to Playwright, for which the network is never idle."""
    count = -1
    while count != len(asked):
        count = len(asked)
        page.wait_for_timeout(500)


@pytest.mark.long
def test_a_long_list_asks_for_pictures_near_the_window_alone(
    browser: Browser, tiny_weights: tuple[Path, Path], many: Path, tmp_path: Path
) -> None:
    project, count = shutil.copytree(many, tmp_path / "project"), MANY
    Project(project).set_classes(CARDS)
    page, asked = browser.new_page(viewport={"width": 1280, "height": 720}), set[str]()
    page.set_default_timeout(WAIT_MS)
    page.on("request", lambda request: asked.add(request.url.partition("?")[0]))

    def pictures() -> int:
        return sum("/thumbnails/" in url for url in asked)

    with serving(tiny_weights[0], project) as served:
        page.goto(served.address)
        page.goto("about:blank")  # from here on a page is loaded anew, and idle when it is
        page.goto(f"http://127.0.0.1:{served.port}/#pick")
        shown = page.locator("main.pick .grid").first.locator("img")
        expect(shown).to_have_count(count)
        settle(page, asked)
        assert 0 < pictures() < count / 2
        with page.expect_request(f"**/thumbnails/{count - 1}?**"):
            shown.last.scroll_into_view_if_needed()
        page.goto("about:blank")
        asked.clear()
        page.goto(f"http://127.0.0.1:{served.port}/#paint/000")
        expect(page.locator(".strip img")).to_have_count(count)
        settle(page, asked)
        assert pictures() < count / 2
        assert not any("/images/" in url and not url.endswith(("/000", "/000/mask", "/000/hold"))
                       for url in asked)  # fmt: skip


# Canvases that have pixels, and the pixels of all.
HELD = """() => {
  const held = [...document.querySelectorAll("main.learn canvas")].filter((one) => one.width);
  return [held.length, held.reduce((sum, one) => sum + one.width * one.height, 0)];
}"""


@pytest.mark.long
def test_a_long_wall_of_proposals_holds_those_near_the_window_alone(
    browser: Browser, tiny_weights: tuple[Path, Path], many: Path, tmp_path: Path
) -> None:
    project, count = shutil.copytree(many, tmp_path / "project"), MANY
    opened = Project(project)
    opened.set_classes(CARDS)
    (opened.work / "proposals").mkdir()
    for stem in opened.images.stems:
        for kind in ("mask", "uncertainty"):
            path = opened.work / "proposals" / f"{stem}.{kind}.png"
            Image.fromarray(np.ones(opened.size, np.uint8)).save(path)
    proposals = {stem: {"uncertainty": 0.1} for stem in opened.images.stems}
    learned = {
        "rounds": 1,
        "classes": ["ground", "figure"],
        "keypoints": [],
        "proposals": proposals,
    }
    (opened.work / "proposals.json").write_text(json.dumps(learned))
    page, asked = browser.new_page(viewport={"width": 1280, "height": 720}), set[str]()
    page.set_default_timeout(WAIT_MS)
    page.on("request", lambda request: asked.add(request.url))
    with serving(tiny_weights[0], project) as served:
        page.goto(served.address)
        page.goto("about:blank")
        asked.clear()
        page.goto(f"http://127.0.0.1:{served.port}/#learn")
        tiles = page.locator("main.learn .wall li")
        expect(tiles).to_have_count(count)
        page.wait_for_function(f"() => ({HELD})()[0] > 0")
        settle(page, asked)
        few, pixels = page.evaluate(HELD)
        assert 0 < few < count / 3 and pixels == few * 32 * 32
        drawn = sum("/proposal?side=256" in url for url in asked)
        assert few <= drawn < count / 3  # on a slow machine some have left the window since
        assert not any("/images/" in url and "/api/" not in url for url in asked), "whole images"
        last = tiles.last.locator("canvas")
        assert last.evaluate("(canvas) => canvas.width") == 0
        tiles.last.scroll_into_view_if_needed()
        page.wait_for_function("(canvas) => canvas.width === 32", arg=last.element_handle())
        page.wait_for_function(f"() => ({HELD})()[0] < {count} / 3")
        assert tiles.first.locator("canvas").evaluate("(canvas) => canvas.width") == 0
        # Keys reach the maps of uncertainty as a mouse does.
        with page.expect_request("**/uncertainty?side=256"):
            tiles.last.locator("a").focus()
