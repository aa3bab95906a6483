"""Tools, dialogs and names in a real browser, by mouse, keys and touch."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from checkpoints import ClassCard
from studio.project import Project
from tests.studio.chromium import (
    IGNORED,
    WAIT_MS,
    Mask,
    draw,
    masks,
    painting,
    refuse_violations,
    running,
)
from tests.studio.conftest import CARDS, NAMES
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set


@pytest.mark.long
def test_each_tool_paints_by_mouse_keys_and_touch_and_a_closed_tab_loses_nothing(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    opened = Project(project)
    opened.set_classes([*CARDS, ClassCard(name="third", color=0xAA3322)])
    opened.save_mask("000", bytes(opened.size[0] * opened.size[1]), "none")
    context = browser.new_context(has_touch=True)
    context.set_default_timeout(WAIT_MS)
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
  const before = structuredClone(classes);
  classes[2].name = "renamed";
  const headers = { "x-studio-tab": "another", "content-type": "application/json" };
  const body = JSON.stringify({ classes, before });
  await fetch("/api/classes", { method: "PUT", headers, body });
}"""


@pytest.mark.long
def test_dialogs_and_keypoints_go_by_keys_alone_and_have_no_violation(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    Project(project).set_classes(CARDS)
    with running(tiny_weights[0], project) as (address, _, _):
        page = painting(browser, address, "000", "Nothing is labeled yet")
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
    with running(tiny_weights[0], folder) as (address, port, _):
        page.goto(address)
        page.goto(f"http://127.0.0.1:{port}/#paint/{NAMES[2]}")
        for name in NAMES:
            page.locator(".strip a", has_text=name).click()
            expect(page.locator("h1")).to_have_text(f"Paint Image {name}")
            page.reload()
            expect(page.locator("h1")).to_have_text(f"Paint Image {name}")
