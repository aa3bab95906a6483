"""More tabs in a real browser than it opens connections to one server."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from checkpoints import ClassCard
from studio.app import PAGE_FILES
from studio.project import Project
from tests.studio.chromium import WAIT_MS, draw, masks, painting, running
from tests.studio.conftest import CARDS, Served

CONNECTIONS = 6  # of chromium to a server


@pytest.mark.long
def test_more_tabs_than_connections_load_save_and_hear_of_each_other(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    Project(project).set_classes(CARDS)
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    with running(tiny_weights[0], project) as (address, _, _):

        def opened(stem: str) -> Page:
            return painting(context, address, stem, f"Image {stem}")

        context.new_page().goto(address)
        first, *rest = (opened("000") for _ in range(CONNECTIONS - 2))
        holder, last = opened("001"), opened("001")
        expect(last.locator(".side")).to_contain_text("Another tab holds this image")
        holder.close()
        expect(last.locator(".side")).to_contain_text("Nothing is labeled yet")  # it has it now
        for page, labeled in ((first, "1 labeled"), (last, "2 labeled")):
            page.keyboard.press("b")
            page.keyboard.press("1")
            draw(page, (0.1, 0.2), (0.9, 0.2))
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
    page.keyboard.press("b")
    page.keyboard.press("1")
    if file == "stream.js":
        expect(page.locator("#banner")).to_contain_text("server is away")
    draw(page, (0.1, 0.2), (0.9, 0.2))
    if file == "sender.js":
        expect(page.locator("#saved")).to_have_text("1 not saved")
    PAGE_FILES[file] = path
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#saved")).to_have_text("All saved")
    assert "000" in masks(served.studio.project.folder)


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
    for pause in (1, 2, 4):
        expect(banner).to_contain_text(f"classes.toml: no. It is read again in {pause} s.")
    page.unroute("**/api/project")
    expect(page.locator(".side")).to_contain_text("renamed")
    expect(banner).to_be_hidden()

    break_project(page)
    cards = [{"name": name, "color": 0x204060} for name in ("ground", "once more")]
    assert served.change("classes", {"classes": cards}).status == 204
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
