"""Tools, dialogs and names in a real browser, by mouse, keys and touch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from checkpoints import ClassCard
from studio.project import Project
from tests.studio.chromium import IGNORED, draw, masks, painting, refuse_violations, saved
from tests.studio.conftest import CARDS, NAMES, Served, serving
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set


@pytest.mark.long
def test_each_tool_paints_by_mouse_keys_and_touch_and_each_stroke_can_be_taken_back(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    opened = Project(project)
    opened.set_classes([*CARDS, ClassCard(name="third", color=0xAA3322)])
    opened.save_mask("000", bytes(opened.size[0] * opened.size[1]), "none")
    steps = [masks(project)["000"]]
    context = browser.new_context(has_touch=True)

    def changed() -> set[int]:
        """The classes that have come in since the last step."""
        steps.append(saved(page, project))
        return set(steps[-1][steps[-1] != steps[-2]].tolist())

    with serving(tiny_weights[0], project) as served:
        page = painting(context, served.address, "000", "Every pixel is labeled")
        draw(page, (0.3, 0.5), (0.7, 0.5), "b2")
        assert changed() == {1}

        page.locator("canvas.board").focus()
        for key in ("b", "3", "ArrowRight"):
            page.keyboard.press(key)
        page.keyboard.down(" ")
        for _ in range(6):
            page.keyboard.press("ArrowDown")
        page.keyboard.up(" ")
        assert changed() == {2}, "by keys alone"

        draw(page, (0.2, 0.2), (0.2, 0.3), "e")
        assert changed() == {IGNORED}, "the eraser"

        draw(page, (0.2, 0.25), (0.2, 0.25), "f3")
        assert changed() == {2}, "fill: what was erased, and no more"
        assert (steps[-1] != IGNORED).all()

        page.keyboard.press("p")
        page.keyboard.press("2")
        for corner in ((0.7, 0.7), (0.9, 0.7), (0.9, 0.9)):
            draw(page, corner, corner)
        page.keyboard.press("Enter")
        assert changed() == {1}, "the polygon"

        page.keyboard.press("b")
        page.keyboard.press("3")
        box = page.locator("canvas.board").bounding_box()
        assert box is not None
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.75)
        assert changed() == {2}, "a finger"

        draw(page, (0.85, 0.78), (0.85, 0.78), "s1")
        expect(page.locator(".smartbar")).to_be_visible()
        assert changed() == {0}, "smart select, of a part of the polygon"
        page.evaluate(ERASE, [0.5, 0.5])
        assert changed() == {IGNORED}, "a pen's other end erases, whatever the tool is"
        draw(page, (0.1, 0.6), (0.3, 0.6), "b3")
        assert changed() == {2}
        page.keyboard.press(",")  # the selection is no longer the last step
        page.evaluate("new Promise(requestAnimationFrame)")
        assert changed() == set(), "what was painted since stays"
        for step in steps[-3::-1]:
            page.keyboard.press("Control+z")
            assert (saved(page, project) == step).all()


# A tap with the eraser of a pen, at a place of the canvas. It has the number of the mouse, since
# only a pointer that the browser knows can be captured.
ERASE = """([x, y]) => {
  const canvas = document.querySelector("canvas.board"), box = canvas.getBoundingClientRect();
  const at = { clientX: box.x + x * box.width, clientY: box.y + y * box.height, bubbles: true };
  for (const [kind, buttons] of [["down", 32], ["up", 0]]) {
    canvas.dispatchEvent(new PointerEvent(`pointer${kind}`,
      { ...at, pointerId: 1, pointerType: "pen", button: 5, buttons, isPrimary: true }));
  }
}"""
RENAME_AS_ANOTHER_TAB = """async () => {
  const { classes } = await (await fetch("/api/project")).json();
  const before = classes.map(({ name, color }) => ({ name, color }));
  const rows = classes.map(({ name, color, keys }) => ({ name, color, key: keys.at(-1) }));
  rows[2].name = "renamed";
  const headers = { "x-studio-tab": "another", "content-type": "application/json" };
  const body = JSON.stringify({ classes: rows, before });
  await fetch("/api/classes", { method: "PUT", headers, body });
}"""


@pytest.mark.long
def test_dialogs_and_keypoints_go_by_keys_alone_and_have_no_violation(
    browser: Browser, served: Served
) -> None:
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
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
    labels = labelled_set(image_set_from_folder(served.folder))
    assert labels.keypoints is not None and labels.stems == ("000",)
    assert labels.keypoints[0, 1].tolist() == [17.5, 19.5, 1.0]


@pytest.mark.long
def test_a_photograph_opens_by_its_own_name(
    browser: Browser, tiny_weights: tuple[Path, Path], photographs: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(photographs, tmp_path / "set"))
    page = browser.new_page()
    with serving(tiny_weights[0], folder) as served:
        page.goto(served.address)
        page.goto(f"http://127.0.0.1:{served.port}/#paint/{NAMES[2]}")
        for name in NAMES:
            page.locator(".strip a", has_text=name).click()
            expect(page.locator("h1")).to_have_text(f"Paint Image {name}")
            page.reload()
            expect(page.locator("h1")).to_have_text(f"Paint Image {name}")
