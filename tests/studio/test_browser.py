"""The page in a real browser: pick, paint, a server that is killed in mid-stroke, learn, accept,
review."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.studio.chromium import IGNORED, WAIT_MS, draw, masks, refuse_violations, running


@pytest.mark.long
def test_from_a_generator_to_an_accepted_proposal_through_a_killed_server(
    browser: Browser, tiny_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    project, generator = tmp_path / "project", tiny_weights[0]
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    context.set_default_timeout(WAIT_MS)
    page, requests, faults = context.new_page(), list[str](), list[str]()
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
        expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")
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
