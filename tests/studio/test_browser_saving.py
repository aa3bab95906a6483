"""What a tab in a real browser shows and saves while the server, the learner and other tabs come
and go."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Route, expect

from checkpoints import ClassCard
from studio.project import Project
from tests.studio.chromium import WAIT_MS, draw, masks, painting, running
from tests.studio.conftest import CARDS, OTHER_TAB, Served, serving

# Whether the banner was ever shown.
NOTE_BANNER = """() => {
  const banner = document.querySelector("#banner");
  globalThis.shown = [];
  new MutationObserver(() => banner.hidden || globalThis.shown.push(banner.textContent))
    .observe(banner, { attributes: true, childList: true });
}"""


def propose(project: Path, *stems: str) -> None:
    """As if the learner had proposed class 1 and two keypoints everywhere."""
    folder = project / "studio/proposals"
    folder.mkdir(parents=True)
    for stem in stems:
        Image.fromarray(np.ones((32, 32), np.uint8)).save(folder / f"{stem}.mask.png")
    proposal = {"uncertainty": 0.1, "points": [[8.0, 8.0], [16.0, 16.0]]}
    learned = {"rounds": 1, "classes": 2, "proposals": dict.fromkeys(stems, proposal)}
    (project / "studio/proposals.json").write_text(json.dumps(learned))


@pytest.mark.long
def test_keypoints_of_another_tab_are_shown_and_not_written_over(
    browser: Browser, served: Served
) -> None:
    served.change("keypoints", {"names": ["left", "right"], "skeleton": []})
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    while not served.studio.tabs.holders():
        page.wait_for_timeout(50)
    page.wait_for_timeout(1000)  # it hears of what follows by an event alone
    row = {"points": [[4, 4, 1], [0, 0, 0]]}
    assert served.send("PUT", "/api/images/001/points", row, x_studio_tab=OTHER_TAB).status == 204
    page.locator(".strip a", has_text="001").click()
    expect(page.locator("h1")).to_have_text("Paint Image 001")
    page.keyboard.press("k")
    expect(page.locator(".points small").first).to_have_text("visible")
    page.get_by_role("button", name="right", exact=False).first.click()
    draw(page, (0.8, 0.8), (0.8, 0.8))
    expect(page.locator(".points small").nth(1)).to_have_text("visible")
    expect(page.locator("#saved")).to_have_text("All saved")
    known = served.studio.project.points("001")
    assert known is not None and known[:, 2].tolist() == [1, 1] and known[0, 0] == 4


@pytest.mark.long
def test_a_keypoint_that_is_dragged_stays_while_another_tab_opens(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    Project(project).set_classes(CARDS)
    propose(project, "000", "001", "002", "003")
    with serving(tiny_weights[0], project) as served:
        served.change("keypoints", {"names": ["left", "right"], "skeleton": []})
        page = painting(browser, served.address, "000", "the ensemble's proposal")
        page.keyboard.press("k")
        draw(page, (0.5, 0.5), (0.7, 0.5), up=False)
        # Another tab has changed what is read anew when a tab opens.
        served.change("keypoints", {"names": ["left", "RIGHT"], "skeleton": []})
        expect(page.locator(".points")).to_contain_text("RIGHT")
        box = page.locator("canvas.board").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8, steps=3)
        page.mouse.up()
        expect(page.locator("#saved")).to_have_text("All saved")
        page.wait_for_function(
            "async () => (await (await fetch('/api/project')).json()).images[0].points"
        )
        known = served.studio.project.points("000")
        assert known is not None and known[0].tolist() == [8, 8, 1], "the other one was dragged"


@pytest.mark.long
def test_keypoints_wait_for_the_server_as_strokes_do_also_if_their_tab_is_closed(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    first = Project(project)
    first.set_classes(CARDS)
    first.set_keypoints(["left", "right"], [])
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)

    def place(x: float) -> None:
        page.keyboard.press("k")
        draw(page, (x, 0.5), (x, 0.5))

    def placed(stem: str) -> list[float]:
        known = Project(project).points(stem)
        return [] if known is None else known[:, 2].tolist()

    with running(tiny_weights[0], project) as (address, port, pid):
        page = painting(context, address, "000", "Nothing is labeled yet")
        os.kill(pid, signal.SIGKILL)
        place(0.3)
        expect(page.locator("#saved")).to_have_text("1 not saved")
    with running(tiny_weights[0], project, port) as (_, _, pid):
        expect(page.locator("#saved")).to_have_text("All saved")
        assert placed("000") == [1, 0]
        expect(page.locator(".message")).to_be_hidden()
        os.kill(pid, signal.SIGKILL)
        place(0.6)
        expect(page.locator("#saved")).to_have_text("1 not saved")
        page.close(run_before_unload=False)
    with running(tiny_weights[0], project, port):
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/#paint/001")
        page.wait_for_function(
            """async () => (await (await fetch('/api/project')).json()).images[0].points
              .every((row) => row[2])"""
        )
        expect(page.locator("#saved")).to_have_text("All saved")


@pytest.mark.long
def test_what_a_tab_has_kept_goes_to_no_image_of_a_project_that_was_made_anew(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    """Its folder and names are the same; a copy that cannot be read is left out."""
    opened = Project(project)
    opened.set_classes(CARDS)
    opened.set_keypoints(["left", "right"], [])
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    with running(tiny_weights[0], project) as (address, port, pid):
        page = painting(context, address, "000", "Nothing is labeled yet")
        os.kill(pid, signal.SIGKILL)
        page.keyboard.press("k")
        draw(page, (0.3, 0.5), (0.3, 0.5))
        page.keyboard.press("b")
        page.keyboard.press("1")
        draw(page, (0.1, 0.2), (0.9, 0.2))
        expect(page.locator("#saved")).to_have_text("2 not saved")
        page.close(run_before_unload=False)
    files = ("index.json", "images/000.png", "images/001.png")
    index = json.loads((project / files[0]).read_text())
    index["images"][:2] = [
        {**new, "file": old["file"]}
        for old, new in zip(index["images"][:2], index["images"][1::-1], strict=True)
    ]
    first, second = ((project / name).read_bytes() for name in files[1:])
    for name, data in zip(files, (json.dumps(index).encode(), second, first), strict=True):
        (project / name).write_bytes(data)
    with running(tiny_weights[0], project, port) as (address, _, _):
        page = painting(context, address, "000", "Nothing is labeled yet")
        expect(page.locator("#saved")).to_have_text("All saved")
        kept = page.evaluate("Object.keys(localStorage)")
        assert len(kept) == 2
        shas = [entry["pixels_sha256"][:16] for entry in index["images"][1::-1]]
        for name in kept:  # as of the images that are there now
            page.evaluate("name => localStorage.setItem(name, '{')", name.replace(*shas))
        page.goto("about:blank")
        page = painting(context, address, "000", "Nothing is labeled yet")
        assert sorted(page.evaluate("Object.keys(localStorage)")) == sorted(kept)
    assert not Project(project).label_files.stems


@pytest.mark.long
def test_an_image_that_is_opened_while_the_server_is_away_is_read_when_it_is_back(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    first = Project(project)
    first.set_classes(CARDS)
    first.save_mask("001", bytes(32 * 32), "none")
    with running(tiny_weights[0], project) as (address, port, pid):
        page = painting(browser, address, "000", "Nothing is labeled yet")
        os.kill(pid, signal.SIGKILL)
        page.locator(".strip a", has_text="001").click()
        expect(page.locator("h1")).to_have_text("Paint Image 001")
        page.keyboard.press("b")
        page.keyboard.press("2")
        draw(page, (0.3, 0.5), (0.7, 0.5))  # on what it has not read
    with running(tiny_weights[0], project, port):
        expect(page.locator(".side")).to_contain_text("Every pixel is labeled")
        expect(page.locator(".message")).to_be_hidden()
        page.evaluate(NOTE_BANNER)
        draw(page, (0.3, 0.5), (0.7, 0.5))
        expect(page.locator("#saved")).to_have_text("All saved")
        assert set(np.unique(masks(project)["001"])) == {0, 1}
        assert page.evaluate("globalThis.shown") == []


@pytest.mark.long
def test_strokes_of_a_closed_tab_are_not_dropped_since_their_mask_has_changed(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    """As when a killed server has saved a stroke and not answered, and the next one came after."""
    Project(project).set_classes(CARDS)
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    with running(tiny_weights[0], project) as (address, port, pid):
        page = painting(context, address, "000", "Nothing is labeled yet")
        os.kill(pid, signal.SIGKILL)
        page.keyboard.press("b")
        page.keyboard.press("2")
        draw(page, (0.3, 0.5), (0.7, 0.5))
        expect(page.locator("#saved")).to_have_text("1 not saved")
        page.close(run_before_unload=False)
    Project(project).save_mask("000", bytes(32 * 32), "none")
    with running(tiny_weights[0], project, port):
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/#paint/000")
        page.get_by_role("button", name="Save mine over it").click()
        expect(page.locator("#saved")).to_have_text("All saved")
        assert 1 in masks(project)["000"]


@pytest.mark.long
def test_a_round_begins_when_a_proposal_is_accepted_and_the_next_image_opened(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    """Not one image later: the label has to be saved before the learner is asked."""
    Project(project).set_classes(CARDS)
    propose(project, "000", "001", "002", "003")
    Project(project).save_mask("000", bytes(32 * 16) + b"\1" * 32 * 16, "none")
    with serving(tiny_weights[0], project) as served:
        page = painting(browser, served.address, "001", "the ensemble's proposal")
        page.keyboard.press("n")
        expect(page.locator("#learning")).to_have_text(re.compile("Learning: [a-z0-9]|round 2"))
        assert "001" in served.studio.project.label_files.masks


@pytest.mark.long
def test_a_tab_that_can_only_look_changes_nothing(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    Project(project).set_classes(CARDS)
    propose(project, "000", "001", "002", "003")
    with serving(tiny_weights[0], project) as served:
        served.open_stream(OTHER_TAB)
        served.send("POST", "/api/images/000/hold", {"tab": OTHER_TAB})
        page = browser.new_page()
        page.set_default_timeout(WAIT_MS)
        page.goto(served.address)
        with page.expect_response("**/proposal"):
            page.goto(f"http://127.0.0.1:{served.port}/#paint/000")
        expect(page.locator(".side")).to_contain_text("Another tab holds this image")
        page.wait_for_timeout(200)  # the proposal is shown
        for key in ("Enter", "Control+z", "n"):
            page.keyboard.press(key)
        expect(page.locator("h1")).not_to_have_text("Paint Image 000")
        expect(page.locator("#saved")).to_have_text("All saved")


@pytest.mark.long
def test_a_proposal_that_comes_late_does_not_go_over_a_stroke(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    Project(project).set_classes(CARDS)
    propose(project, "000", "001", "002", "003")
    with serving(tiny_weights[0], project) as served:
        page = painting(browser, served.address, "000", "the ensemble's proposal")
        page.keyboard.press("b")
        page.keyboard.press("1")
        held: list[Route] = []
        page.route("**/proposal", lambda route: held.append(route))
        blank = bytes(served.pixels)
        assert served.save("001", blank, '"none"', x_studio_tab=OTHER_TAB).status == 204
        while not held:  # the learner has told something
            page.wait_for_timeout(20)
        draw(page, (0.2, 0.3), (0.8, 0.3))
        expect(page.locator("#saved")).to_have_text("All saved")
        first = masks(project)["000"]
        held[0].continue_()
        page.wait_for_timeout(300)
        draw(page, (0.2, 0.7), (0.8, 0.7))
        expect(page.locator("#saved")).to_have_text("All saved")
        second = masks(project)["000"]
        assert (first == 0).any() and (second[first == 0] == 0).all()


@pytest.mark.long
def test_a_stroke_that_was_cut_off_by_another_tab_is_saved_when_the_image_is_taken_back(
    browser: Browser, served: Served
) -> None:
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    while not served.studio.tabs.holders():
        page.wait_for_timeout(50)
    served.open_stream(OTHER_TAB)
    page.keyboard.press("b")
    page.keyboard.press("1")
    draw(page, (0.2, 0.3), (0.5, 0.3), up=False)
    taken = {"tab": OTHER_TAB, "take": True}
    assert served.send("POST", "/api/images/000/hold", taken).status == 204
    expect(page.locator(".side")).to_contain_text("Another tab holds this image")
    page.mouse.up()
    expect(page.locator("#saved")).to_have_text("1 not saved")
    page.get_by_role("button", name="Take it over").click()
    expect(page.locator("#saved")).to_have_text("All saved")
    assert 0 in masks(served.folder)["000"]


@pytest.mark.long
def test_an_answer_that_a_later_one_has_overtaken_is_not_shown(
    browser: Browser, served: Served
) -> None:
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    while not served.studio.tabs.holders():
        page.wait_for_timeout(50)
    page.wait_for_timeout(1000)
    held: list[Route] = []
    page.route("**/api/project", lambda one: one.continue_() if held else held.append(one))
    reload = "() => void import('/page/store.js').then((store) => store.reload())"
    page.evaluate(reload)
    while not held:
        page.wait_for_timeout(20)
    old = held[0].fetch()
    served.studio.project.set_classes([CARDS[0], ClassCard(name="renamed", color=0x204060)])
    page.evaluate(reload)
    expect(page.locator(".side")).to_contain_text("renamed")
    held[0].fulfill(response=old)
    page.wait_for_timeout(300)
    expect(page.locator(".side")).to_contain_text("renamed")


@pytest.mark.long
def test_a_mask_that_cannot_be_read_is_named_when_its_image_is_taken_over(
    browser: Browser, served: Served
) -> None:
    served.open_stream(OTHER_TAB)
    served.save("000", bytes(served.pixels), '"none"', x_studio_tab=OTHER_TAB)
    page = painting(browser, served.address, "000", "Another tab holds this image")
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(served.folder / "masks/000.png")
    page.get_by_role("button", name="Take it over").click()
    expect(page.locator(".message")).to_contain_text("000.png")
