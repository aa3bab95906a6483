"""More tabs in a real browser than it opens connections to one server, and what another tab does:
nothing that a tab shows or saves is lost by it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from checkpoints import ClassCard
from studio.app import PAGE_FILES
from tests.hangs import eventually
from tests.studio.chromium import (
    WAIT_MS,
    draw,
    masks,
    painting,
    saved,
    wait_until_it_hears,
)
from tests.studio.conftest import CARDS, OTHER_TAB, Served, classes

CONNECTIONS = 6  # of chromium to a server


@pytest.mark.long
def test_more_tabs_than_connections_load_save_and_hear_of_each_other(
    browser: Browser, served: Served
) -> None:
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)

    def opened(stem: str) -> Page:
        return painting(context, served.address, stem, f"Image {stem}")

    context.new_page().goto(served.address)
    first, *rest = (opened("000") for _ in range(CONNECTIONS - 2))
    holder, last = opened("001"), opened("001")
    expect(last.locator(".side")).to_contain_text("Another tab holds this image")
    holder.close()
    expect(last.locator(".side")).to_contain_text("Nothing is labeled yet")  # it has it now
    for page, labeled in ((first, "1 labeled"), (last, "2 labeled")):
        draw(page, (0.1, 0.2), (0.9, 0.2), "b1")
        for hearing in (first, *rest, last):
            expect(hearing.locator("#steps")).to_contain_text(labeled)
        expect(page.locator("#saved")).to_have_text("All saved")


@pytest.mark.long
@pytest.mark.parametrize("file", ["stream.js", "sender.js"])
def test_a_worker_that_could_not_be_loaded_is_started_again_and_the_stroke_is_saved(
    browser: Browser, served: Served, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """As after a server that goes away between the page and its workers, the sender of which starts
    with the first stroke: strokes were "Saving" for ever."""
    path = PAGE_FILES[file]
    monkeypatch.delitem(PAGE_FILES, file)
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    if file == "stream.js":
        expect(page.locator("#banner")).to_contain_text("server is away")
    draw(page, (0.1, 0.2), (0.9, 0.2), "b1")
    if file == "sender.js":
        expect(page.locator("#saved")).to_have_text("1 not saved")
    PAGE_FILES[file] = path
    expect(page.locator("#banner")).to_be_hidden()
    assert 0 in saved(page, served.folder)


@pytest.mark.long
def test_a_project_that_could_not_be_read_is_read_again_with_a_line_that_says_so(
    browser: Browser, served: Served
) -> None:
    """When the stream of events comes up, when the project has changed, and when a page is opened:
    the tab showed the old state, or nothing, for ever."""
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    page = painting(context, served.address, "000", "Nothing is labeled yet")
    banner = page.locator("#banner")

    def break_project(page: Page) -> None:
        """As with a label file that cannot be read."""
        page.route("**/api/project", lambda one: one.fulfill(status=507, body="classes.toml: no"))

    break_project(page)
    served.studio.project.set_classes([CARDS[0], ClassCard(name="renamed", color=0x204060)])
    other = context.new_page()
    other.goto(served.address)  # all tabs get another stream
    for pause in (1, 2):
        expect(banner).to_contain_text(f"classes.toml: no. It is read again in {pause} s.")
    page.unroute("**/api/project")
    expect(page.locator(".side")).to_contain_text("renamed")
    expect(banner).to_be_hidden()

    break_project(page)
    assert served.change("classes", classes("ground", "once more")).status == 204
    expect(banner).to_contain_text("It is read again in 1 s.")
    page.unroute("**/api/project")
    expect(page.locator(".side")).to_contain_text("once more")
    expect(banner).to_be_hidden()

    break_project(other)
    other.goto(f"http://127.0.0.1:{served.port}/?#paint/001")
    expect(other.locator("#banner")).to_contain_text("It is read again in 1 s.")
    other.unroute("**/api/project")
    expect(other.locator(".side")).to_contain_text("Nothing is labeled yet")
    expect(other.locator("#banner")).to_be_hidden()


@pytest.mark.long
def test_keypoints_of_another_tab_are_shown_and_not_written_over(
    browser: Browser, served: Served
) -> None:
    served.change("keypoints", {"names": ["left", "right"], "skeleton": []})
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    wait_until_it_hears(page)
    assert served.place("001", [[4, 4, 1], [0, 0, 0]], x_studio_tab=OTHER_TAB).status == 204
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
    browser: Browser, proposed: Served
) -> None:
    proposed.change("keypoints", {"names": ["left", "right"], "skeleton": []})
    page = painting(browser, proposed.address, "000", "the ensemble's proposal")
    draw(page, (0.5, 0.5), (0.7, 0.5), "k", up=False)
    # Another tab has changed what is read anew when a tab opens.
    proposed.change("keypoints", {"names": ["left", "right", "third"], "skeleton": []})
    expect(page.locator(".points")).to_contain_text("third")
    box = page.locator("canvas.board").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8, steps=3)
    page.mouse.up()
    expect(page.locator("#saved")).to_have_text("All saved")
    assert eventually(lambda: proposed.studio.project.points("000") is not None)
    known = proposed.studio.project.points("000")
    assert known is not None and known[0].tolist() == [8, 8, 1], "the other one was dragged"


@pytest.mark.long
def test_a_tab_that_can_only_look_changes_nothing(browser: Browser, proposed: Served) -> None:
    proposed.open_stream(OTHER_TAB)
    proposed.send("POST", "/api/images/000/hold", {"tab": OTHER_TAB})
    page = painting(browser, proposed.address, "000", "Another tab holds this image")
    expect(page.locator(".hover")).to_have_count(1)
    box = page.locator("canvas.board").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_function(  # the proposal is shown
        """() => {
          const at = document.querySelector(".board").getBoundingClientRect();
          document.querySelector(".board").dispatchEvent(new PointerEvent("pointermove",
            { clientX: at.x + at.width / 2, clientY: at.y + at.height / 2, pointerId: 9 }));
          return document.querySelector(".hover").textContent.startsWith("figure");
        }"""
    )
    for key in ("Enter", "Control+z", "n"):
        page.keyboard.press(key)
    expect(page.locator("h1")).not_to_have_text("Paint Image 000")
    expect(page.locator("#saved")).to_have_text("All saved")
    assert not proposed.studio.project.label_files.masks


@pytest.mark.long
def test_a_stroke_that_was_cut_off_by_another_tab_is_saved_when_the_image_is_taken_back(
    browser: Browser, served: Served
) -> None:
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    wait_until_it_hears(page)
    served.open_stream(OTHER_TAB)
    draw(page, (0.2, 0.3), (0.5, 0.3), "b1", up=False)
    taken = {"tab": OTHER_TAB, "take": True}
    assert served.send("POST", "/api/images/000/hold", taken).status == 204
    expect(page.locator(".side")).to_contain_text("Another tab holds this image")
    page.mouse.up()
    expect(page.locator("#saved")).to_have_text("1 not saved")
    page.get_by_role("button", name="Take it over").click()
    assert 0 in saved(page, served.folder)

    # A mask that cannot be read is named when its image is taken over.
    assert served.send("POST", "/api/images/001/hold", taken).status == 204
    page.locator(".strip a", has_text="001").click()
    expect(page.locator(".side")).to_contain_text("Another tab holds this image")
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(served.folder / "masks/001.png")
    page.get_by_role("button", name="Take it over").click()
    expect(page.locator(".message")).to_contain_text("001.png")


@pytest.mark.long
def test_an_answer_that_a_later_one_has_overtaken_is_not_shown(
    browser: Browser, served: Served
) -> None:
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    wait_until_it_hears(page)
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
    with page.expect_response("**/api/project"):
        held[0].fulfill(response=old)
    page.evaluate("new Promise((done) => setTimeout(done))")  # it has been read
    expect(page.locator(".side")).to_contain_text("renamed")


@pytest.mark.long
def test_strokes_of_a_class_that_another_tab_has_replaced_wait_for_the_person(
    browser: Browser, served: Served
) -> None:
    """They were saved as the class that has taken its id, and a redo painted it. The dialog of the
    other tab had counted as a rename."""
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    page = painting(context, served.address, "000", "Nothing is labeled yet")
    draw(page, (0.1, 0.2), (0.9, 0.2), "b1")
    before = saved(page, served.folder)
    draw(page, (0.1, 0.8), (0.9, 0.8), "2")
    assert 1 in saved(page, served.folder)
    other = painting(context, served.address, "001", "Nothing is labeled yet")

    def replace_last(name: str) -> None:
        other.get_by_role("button", name="Edit").click()
        other.locator("dialog").get_by_role("button", name="Remove").click()
        other.get_by_role("button", name="Add a class").click()
        other.get_by_label("Name of class 2").fill(name)
        other.get_by_role("button", name="Save", exact=True).click()

    replace_last("sky")
    expect(other.locator("dialog")).to_contain_text("figure is painted in 000; erase it there")
    other.get_by_role("button", name="Cancel").click()
    page.keyboard.press("Control+z")
    assert (saved(page, served.folder) == before).all()
    replace_last("sky")
    expect(page.locator(".side")).to_contain_text("sky")
    expect(page.get_by_label("Redo")).to_be_disabled()
    page.keyboard.press("Control+y")
    draw(page, (0.1, 0.5), (0.4, 0.5), "1")
    assert set(np.unique(saved(page, served.folder))) == {0, 255}

    draw(page, (0.1, 0.8), (0.9, 0.8), "2", up=False)  # sky
    replace_last("hat")
    expect(page.locator(".side")).to_contain_text("hat")
    page.mouse.up()
    expect(page.locator(".side")).to_contain_text("Not saved: the classes have changed")
    expect(page.locator("#saved")).to_have_text("1 not saved")
    draw(page, (0.1, 0.6), (0.9, 0.6), "1")  # nothing is painted until it is decided
    page.close(run_before_unload=False)
    page = painting(context, served.address, "000", "Not saved: the classes have changed")
    page.get_by_role("button", name="Save mine without sky").click()
    after = saved(page, served.folder)
    assert set(np.unique(after)) == {0, 255} and (after[18:20] == 255).all()
    draw(page, (0.1, 0.8), (0.9, 0.8), "b2")
    assert 1 in saved(page, served.folder)
    assert list(masks(served.folder)) == ["000"]
