"""The page in a real browser: pick, paint, a server that is killed in mid-stroke, learn, accept,
review."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from checkpoints import ClassCard
from studio.project import Project
from tests.studio.conftest import CARDS, NAMES
from training.__main__ import main as training_command
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set

CHECKOUT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")
WAIT_MS = 600_000  # for hangs; a quiet machine needs a few seconds, learning on a busy one minutes
IGNORED = 255
MANY = 400  # images, of which a window shows few
Mask = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Debian's chromium, without a window."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


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


@contextmanager
def running(generator: Path, project: Path, port: int = 0) -> Iterator[tuple[str, int, int]]:
    """The command as a user starts it: its address, its port and its process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "studio", "--generator", str(generator), "--project", str(project),
         "--listen", f"127.0.0.1:{port}"],
        cwd=CHECKOUT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"open (http://127\.0\.0\.1:(\d+)/\?token=\S+)", line):
                break
        else:
            pytest.fail("the studio has not started")
        yield found[1], int(found[2]), process.pid
    finally:
        process.kill()
        process.communicate()


def draw(page: Page, start: tuple[float, float], end: tuple[float, float], up: bool = True) -> None:
    """A stroke of the mouse between two places, as shares of the picture on the canvas."""
    box = page.locator("canvas.board").bounding_box()
    assert box is not None
    side = min(box["width"], box["height"]) * 0.8
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    for step, (x, y) in enumerate((start, end)):
        page.mouse.move(left + x * side, top + y * side, steps=1 if step == 0 else 8)
        if step == 0:
            page.mouse.down()
    if up:
        page.mouse.up()


def masks(project: Path) -> dict[str, Mask]:
    """The masks on disk, as training reads them."""
    labels = labelled_set(image_set_from_folder(project))
    assert labels.masks is not None
    return dict(zip(labels.stems, labels.masks, strict=True))


def refuse_violations(page: Page) -> None:
    """Fails for what axe finds wrong in the page as it stands."""
    found = Axe().run(page).response["violations"]
    assert not found, "\n".join(
        f"{v['id']}: {v['help']}: {[n['html'][:120] for n in v['nodes'][:3]]}" for v in found
    )


@pytest.mark.long
def test_from_a_generator_to_an_accepted_proposal_through_a_killed_server(
    browser: Browser, tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    project, generator = tmp_path / "project", tiny_weights[0]
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(WAIT_MS)
    page, requests, faults = context.new_page(), list[str](), list[str]()
    expect.set_options(timeout=WAIT_MS)
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    with running(generator, project) as (address, port, pid):
        page.goto(address)
        expect(page).to_have_url(re.compile(r"/#?[a-z/0-9]*$"))  # the token is out of sight
        expect(page.locator("main.pick .grid").first.locator("img")).to_have_count(16)
        refuse_violations(page)
        page.get_by_role("button", name=re.compile("Put candidate")).first.click()
        expect(page.locator("main.pick .grid").first.locator("img")).to_have_count(17)

        page.get_by_role("link", name="Paint them").click()
        refuse_violations(page)
        page.get_by_label("Classes").fill("ground\nfigure")
        page.get_by_role("button", name="Start painting").click()
        page.locator("canvas.board").wait_for()
        expect(page.locator(".hover")).to_be_attached()
        page.keyboard.press("b")
        page.keyboard.press("1")
        draw(page, (0.1, 0.2), (0.9, 0.2))
        expect(page.locator("#saved")).to_have_text("All saved")
        first = masks(project)["000"]
        assert set(np.unique(first)) == {0, IGNORED}, "one class for each pixel, none in between"
        refuse_violations(page)

        page.keyboard.press("2")
        draw(page, (0.1, 0.8), (0.5, 0.8), up=False)
        os.kill(pid, signal.SIGKILL)
        draw_on(page)
        expect(page.locator("#banner")).to_contain_text("server is away")
        expect(page.locator("#saved")).to_have_text("1 not saved")
        refuse_violations(page)
        assert (masks(project)["000"] == first).all(), "the file is whole"

    with running(generator, project, port) as (address, _, _):
        expect(page.locator("#saved")).to_have_text("All saved")
        second = masks(project)["000"]
        assert (second[first == 0] == 0).all() and (second == 1).sum() > 10
        page.keyboard.press("Control+z")
        expect(page.locator("#saved")).to_have_text("All saved")
        page.wait_for_function("() => document.querySelector('#saved').textContent === 'All saved'")
        assert (masks(project)["000"] == first).all(), "undo is saved, too"
        page.keyboard.press("Control+y")
        page.keyboard.press("s")
        draw(page, (0.5, 0.5), (0.5, 0.5))
        expect(page.locator(".smartbar")).to_be_visible()

        other = context.new_page()
        other.goto(f"{address}")
        other.goto(f"http://127.0.0.1:{port}/#paint/000")
        expect(other.locator(".side")).to_contain_text("Another tab holds this image")
        refuse_violations(other)
        other.close()

        # Both classes have pixels, so that learning has begun by itself.
        expect(page.locator("#learning")).to_have_text(re.compile("Learned, round"))
        page.keyboard.press("n")
        expect(page.locator(".side")).to_contain_text("the ensemble's proposal")
        refuse_violations(page)
        stem = page.url.rpartition("/")[2]
        assert stem != "000" and stem not in masks(project)
        page.keyboard.press("n")
        expect(page.locator("#saved")).to_have_text("All saved")
        page.wait_for_function(f"() => !location.hash.endsWith('/{stem}')")
        accepted = masks(project)[stem]
        assert set(np.unique(accepted)) <= {0, 1}, "every pixel is labeled"
        review_samples(page, project)
        for name in ("learn", "export"):
            page.get_by_role("navigation", name="Steps").get_by_text(name.title()).click()
            page.locator(f"main.{name} h1").wait_for()
            refuse_violations(page)
        page.get_by_role("navigation", name="Steps").get_by_text("Learn").click()
        page.get_by_role("button", name="Learn again").click()
        # Two images are labeled, so that after the round each was left out once.
        expect(page.locator("svg.chart")).to_have_count(2)
        expect(page.get_by_role("region", name="The curves")).to_contain_text("2")
        refuse_violations(page)
    assert faults == []
    assert {url.split("/")[2] for url in requests if url.startswith("http")} == {
        f"127.0.0.1:{port}"
    }


def review_samples(page: Page, project: Path) -> None:
    """Draws a wall, says of three samples what they are, and corrects the fourth."""
    page.get_by_role("navigation", name="Steps").get_by_text("Review").click()
    page.get_by_role("button", name="Draw samples").click()
    expect(page.locator("ul.review li")).to_have_count(32)
    first = page.get_by_role("button", name="Sample 1 is right")
    first.focus()
    for key in "rrw":  # each goes on to the next
        page.keyboard.press(key)
    expect(page.locator(".proof")).to_contain_text("Among the 3 reviewed ones it is 33.3%")
    refuse_violations(page)
    page.get_by_role("link", name="Correct sample 4", exact=True).click()
    expect(page.locator(".side")).to_contain_text("Correct what the ensemble has wrong")
    page.keyboard.press("2")
    draw(page, (0.1, 0.2), (0.9, 0.2))
    page.keyboard.press("1")
    draw(page, (0.1, 0.6), (0.9, 0.6))
    expect(page.locator("#saved")).to_have_text("All saved")
    refuse_violations(page)
    page.keyboard.press("n")
    expect(page.locator("ul.review li").nth(3)).to_contain_text("% wrong")
    page.reload()
    expect(page.locator(".proof")).to_contain_text("Among the 4 reviewed ones")
    (stored,) = (project / "reviews").glob("*.certificate.json")
    assert len(json.loads(stored.read_text())["losses"]) == 4


def draw_on(page: Page) -> None:
    """The rest of a stroke that has begun."""
    page.mouse.move(700, 500, steps=4)
    page.mouse.up()


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
PIXELS = "document.querySelector('canvas.board').toDataURL()"


@pytest.mark.long
def test_a_stroke_draws_no_more_than_its_surroundings_and_leaves_what_a_whole_drawing_shows(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    opened = Project(project)
    opened.set_classes(CARDS)
    opened.save_mask("000", bytes(opened.size[0] * opened.size[1]), "none")
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    with running(tiny_weights[0], project) as (address, port, _):
        page.goto(address)
        page.goto(f"http://127.0.0.1:{port}/#paint/000")
        expect(page.locator(".side")).to_contain_text("Every pixel is labeled")
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


@pytest.mark.long
def test_a_long_list_asks_for_pictures_near_the_window_alone(
    browser: Browser, tiny_weights: tuple[Path, Path], many: Path, tmp_path: Path
) -> None:
    project, count = shutil.copytree(many, tmp_path / "project"), MANY
    Project(project).set_classes(CARDS)
    page, asked = browser.new_page(viewport={"width": 1280, "height": 720}), set[str]()
    page.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    page.on("request", lambda request: asked.add(request.url.partition("?")[0]))

    def pictures() -> int:
        return sum("/thumbnails/" in url for url in asked)

    with running(tiny_weights[0], project) as (address, port, _):
        page.goto(address)
        page.goto("about:blank")  # from here on a page is loaded anew, and idle when it is
        page.goto(f"http://127.0.0.1:{port}/#pick")
        shown = page.locator("main.pick .grid").first.locator("img")
        expect(shown).to_have_count(count)
        page.wait_for_load_state("networkidle")
        assert 0 < pictures() < count / 2
        with page.expect_request(f"**/thumbnails/{count - 1}?**"):
            shown.last.scroll_into_view_if_needed()
        page.goto("about:blank")
        asked.clear()
        page.goto(f"http://127.0.0.1:{port}/#paint/000")
        expect(page.locator(".strip img")).to_have_count(count)
        page.wait_for_load_state("networkidle")
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
    learned = {"rounds": 1, "classes": 2, "proposals": proposals}
    (opened.work / "proposals.json").write_text(json.dumps(learned))
    page, asked = browser.new_page(viewport={"width": 1280, "height": 720}), set[str]()
    page.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    page.on("request", lambda request: asked.add(request.url))
    with running(tiny_weights[0], project) as (address, port, _):
        page.goto(address)
        page.goto("about:blank")
        asked.clear()
        page.goto(f"http://127.0.0.1:{port}/#learn")
        tiles = page.locator("main.learn .wall li")
        expect(tiles).to_have_count(count)
        page.wait_for_function(f"() => ({HELD})()[0] > 0")
        page.wait_for_load_state("networkidle")
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


@pytest.mark.long
def test_each_tool_paints_by_mouse_keys_and_touch_and_a_closed_tab_loses_nothing(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    opened = Project(project)
    opened.set_classes([*CARDS, ClassCard(name="third", color=0xAA3322)])
    opened.save_mask("000", bytes(opened.size[0] * opened.size[1]), "none")
    context = browser.new_context(has_touch=True)
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    page = context.new_page()

    def changed(before: Mask) -> set[int]:
        """The classes that have come in since."""
        expect(page.locator("#saved")).to_have_text("All saved")
        now = masks(project)["000"]
        return set(now[now != before].tolist())

    with running(tiny_weights[0], project) as (address, port, pid):
        page.goto(address)
        page.goto(f"http://127.0.0.1:{port}/#paint/000")
        expect(page.locator(".side")).to_contain_text("Every pixel is labeled")
        blank = masks(project)["000"]
        page.keyboard.press("b")
        page.keyboard.press("2")
        os.kill(pid, signal.SIGKILL)
        draw(page, (0.3, 0.5), (0.7, 0.5))
        expect(page.locator("#saved")).to_have_text("1 not saved")
        page.close(run_before_unload=False)
        assert (masks(project)["000"] == blank).all()
    with running(tiny_weights[0], project, port):
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/#paint/000")
        expect(page.locator(".message")).to_contain_text("are back")
        assert changed(blank) == {1}
        steps = [masks(project)["000"]]

        page.locator("canvas.board").focus()
        page.keyboard.press("b")
        page.keyboard.press("3")
        page.keyboard.press("ArrowRight")
        page.keyboard.down(" ")
        for _ in range(6):
            page.keyboard.press("ArrowDown")
        page.keyboard.up(" ")
        assert changed(steps[-1]) == {2}, "by keys alone"
        steps.append(masks(project)["000"])

        page.keyboard.press("e")
        draw(page, (0.2, 0.2), (0.2, 0.3))
        assert changed(steps[-1]) == {IGNORED}, "the eraser"
        steps.append(masks(project)["000"])

        page.keyboard.press("f")
        page.keyboard.press("3")
        draw(page, (0.2, 0.25), (0.2, 0.25))
        assert changed(steps[-1]) == {2}, "fill: what was erased, and no more"
        assert (masks(project)["000"] != IGNORED).all()
        steps.append(masks(project)["000"])

        page.keyboard.press("p")
        page.keyboard.press("2")
        for corner in ((0.7, 0.7), (0.9, 0.7), (0.9, 0.9)):
            draw(page, corner, corner)
        page.keyboard.press("Enter")
        assert changed(steps[-1]) == {1}, "the polygon"
        steps.append(masks(project)["000"])

        page.keyboard.press("b")
        page.keyboard.press("3")
        box = page.locator("canvas.board").bounding_box()
        assert box is not None
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.75)
        assert changed(steps[-1]) == {2}, "a finger"
        steps.append(masks(project)["000"])

        page.keyboard.press("s")
        page.keyboard.press("1")
        draw(page, (0.85, 0.78), (0.85, 0.78))
        expect(page.locator(".smartbar")).to_be_visible()
        assert changed(steps[-1]) == {0}, "smart select, of a part of the polygon"
        steps.append(masks(project)["000"])
        page.keyboard.press("b")
        page.keyboard.press("3")
        draw(page, (0.1, 0.6), (0.3, 0.6))
        assert changed(steps[-1]) == {2}
        before = masks(project)["000"]
        page.keyboard.press(",")  # the selection is no longer the last step
        page.evaluate("new Promise(requestAnimationFrame)")
        assert changed(before) == set(), "what was painted since stays"
        for step in reversed(steps):
            page.keyboard.press("Control+z")
            expect(page.locator("#saved")).to_have_text("All saved")
            assert (masks(project)["000"] == step).all()


RENAME_AS_ANOTHER_TAB = """async () => {
  const { classes } = await (await fetch("/api/project")).json();
  classes[2].name = "renamed";
  const headers = { "x-studio-tab": "another", "content-type": "application/json" };
  await fetch("/api/classes", { method: "PUT", headers, body: JSON.stringify({ classes }) });
}"""


@pytest.mark.long
def test_dialogs_and_keypoints_go_by_keys_alone_and_have_no_violation(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    Project(project).set_classes(CARDS)
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    with running(tiny_weights[0], project) as (address, port, _):
        page.goto(address)
        page.goto(f"http://127.0.0.1:{port}/#paint/000")
        expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")
        page.keyboard.press("?")
        expect(page.locator("dialog")).to_contain_text("brush, eraser, polygon")
        refuse_violations(page)
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Edit").focus()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Add a class").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Name of class 3")).to_have_value("class 3")
        refuse_violations(page)
        page.get_by_role("button", name="Save", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator(".side")).to_contain_text("class 3")
        edit = page.get_by_role("button", name="Edit")
        edit.focus()
        page.evaluate(RENAME_AS_ANOTHER_TAB)
        expect(page.locator(".side")).to_contain_text("renamed")
        expect(edit).to_be_focused()  # in a panel that was drawn again

        page.keyboard.press("k")
        page.get_by_role("button", name="Edit").focus()
        page.keyboard.press("Enter")
        page.get_by_label("Names, one per line").fill("left\nright")
        page.get_by_label("Lines of the skeleton").fill("left - right")
        refuse_violations(page)
        page.get_by_role("button", name="Save", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator(".points")).to_contain_text("left")
        refuse_violations(page)
        page.locator("canvas.board").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press(" ")  # places the first and goes on to the second
        for _ in range(3):
            page.keyboard.press("ArrowDown")
        page.keyboard.press(" ")
        expect(page.locator(".points small").nth(1)).to_have_text("visible")
        page.get_by_role("button", name="left cannot be seen").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".points small").first).to_have_text("not set")
        page.wait_for_function(
            """async () => (await (await fetch("/api/project")).json())
              .images[0].points?.map((row) => row[2]).join() === '0,1'"""
        )
        labels = labelled_set(image_set_from_folder(project))
        assert labels.keypoints is not None and labels.stems == ("000",)
        assert labels.keypoints[0, 1].tolist() == [17.5, 19.5, 1.0]


@pytest.mark.long
def test_a_photograph_opens_by_its_own_name(
    browser: Browser, tiny_weights: tuple[Path, Path], photographs: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(photographs, tmp_path / "set"))
    Project(folder).set_classes(CARDS)
    page = browser.new_page()
    expect.set_options(timeout=WAIT_MS)
    with running(tiny_weights[0], folder) as (address, port, _):
        page.goto(address)
        page.goto(f"http://127.0.0.1:{port}/#paint/{NAMES[2]}")
        for name in NAMES:
            page.locator(".strip a", has_text=name).click()
            expect(page.locator("h1")).to_have_text(f"Paint Image {name}")
            page.reload()
            expect(page.locator("h1")).to_have_text(f"Paint Image {name}")
