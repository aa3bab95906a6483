"""More tabs in a real browser than it opens connections to one server."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from studio.project import Project
from tests.studio.chromium import WAIT_MS, draw, running
from tests.studio.conftest import CARDS

CONNECTIONS = 6  # of chromium to a server


@pytest.mark.long
def test_more_tabs_than_connections_load_save_and_hear_of_each_other(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    Project(project).set_classes(CARDS)
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    with running(tiny_weights[0], project) as (address, port, _):

        def opened(stem: str) -> Page:
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{port}/#paint/{stem}")
            expect(page.locator(".side")).to_contain_text(f"Image {stem}")
            return page

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
