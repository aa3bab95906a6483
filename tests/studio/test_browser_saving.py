"""What a tab in a real browser keeps and saves while the server goes away and comes back."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from studio.project import Project
from tests.studio.chromium import WAIT_MS, draw, masks, painting, saved
from tests.studio.conftest import CARDS, serving

# Whether the banner was ever shown.
NOTE_BANNER = """() => {
  const banner = document.querySelector("#banner");
  globalThis.shown = [];
  new MutationObserver(() => banner.hidden || globalThis.shown.push(banner.textContent))
    .observe(banner, { attributes: true, childList: true });
}"""
FILL = """() => {
  for (let size = 1 << 20; size >= 1; size >>= 1) {
    try {
      for (let n = 0; ; n++) localStorage.setItem(`filler ${size} ${n}`, "x".repeat(size));
    } catch {}
  }
}"""
EMPTY = """() => Object.keys(localStorage).filter((name) => name.startsWith("filler"))
  .forEach((name) => localStorage.removeItem(name))"""
COPIES = "Object.keys(localStorage).filter((name) => name.startsWith('studio '))"


@pytest.fixture
def context(browser: Browser) -> BrowserContext:
    """A window whose tabs share what the browser keeps."""
    found = browser.new_context()
    found.set_default_timeout(WAIT_MS)
    return found


@pytest.fixture
def named(project: Path) -> Path:
    """A project with two classes and two keypoints."""
    opened = Project(project)
    opened.set_classes(CARDS)
    opened.set_keypoints(["left", "right"], [])
    return project


def place(page: Page, x: float) -> None:
    """Places the next keypoint."""
    draw(page, (x, 0.5), (x, 0.5), "k")


def open_again(context: BrowserContext, port: int, stem: str) -> Page:
    """A tab of a browser that has the token."""
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}/#paint/{stem}")
    expect(page.locator("h1")).to_have_text(f"Paint Image {stem}")
    return page


@contextmanager
def another_program(port: int, status: int) -> Iterator[None]:
    """A program that answers every request on a port with a status and the words "status N"."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"status {status}".encode()
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_GET

        def log_message(self, *_ignored: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.long
def test_what_is_refused_for_a_while_is_kept_in_the_browser_and_saved_afterwards(
    context: BrowserContext, tiny_weights: tuple[Path, Path], named: Path
) -> None:
    """Such as with a token that is right no more, or while another program has the port: a tab that
    was closed had lost its strokes and keypoints. A browser without room says so."""
    with serving(tiny_weights[0], named) as served:
        page, port = painting(context, served.address, "000", "Nothing is labeled"), served.port
        draw(page, (0.5, 0.1), (0.9, 0.1), "b1")  # starts the worker that sends
        saved(page, named)
        served.end()
        banner = page.locator("#banner")
        for n, status in enumerate((401, 404, 500, 507)):
            with another_program(port, status):
                draw(page, (0.1, 0.2 * (n + 1)), (0.9, 0.2 * (n + 1)), "b2")
                expect(banner).to_contain_text(f"Not saved: status {status}. It is tried again")
                place(page, 0.2 * (n + 1))
                expect(page.locator("#saved")).to_have_text("2 not saved")
                page.wait_for_function(f"() => {COPIES}.length === 2")
        page.evaluate(FILL)
        page.evaluate(f"{COPIES}.forEach((name) => localStorage.removeItem(name))")
        page.evaluate(FILL)
        draw(page, (0.5, 0.1), (0.5, 0.9), "b2")
        expect(banner).to_contain_text("This browser has no room to keep more")
        page.evaluate(EMPTY)
        draw(page, (0.2, 0.1), (0.2, 0.9), "b2")
        place(page, 0.9)
        expect(banner).not_to_contain_text("no room")
        page.wait_for_function(f"() => {COPIES}.length === 2")
        page.close(run_before_unload=False)
    with serving(tiny_weights[0], named, port) as served:
        page = open_again(context, port, "000")
        expect(page.locator(".message")).to_contain_text("are back")
        mask = saved(page, named)
        assert (mask == 1).any(axis=1).sum() > 20 and (mask == 1).any(axis=0).sum() > 20
        known = served.studio.project.points("000")
        assert known is not None and known[:, 2].tolist() == [1, 1]
        assert page.evaluate(COPIES) == []


@pytest.mark.long
def test_keypoints_wait_for_the_server_as_strokes_do_also_if_their_tab_is_closed(
    context: BrowserContext, tiny_weights: tuple[Path, Path], named: Path
) -> None:
    def placed() -> list[float]:
        known = Project(named).points("000")
        return [] if known is None else known[:, 2].tolist()

    with serving(tiny_weights[0], named) as served:
        page, port = painting(context, served.address, "000", "Nothing is labeled"), served.port
        served.end()
        place(page, 0.3)
        expect(page.locator("#saved")).to_have_text("1 not saved")
    with serving(tiny_weights[0], named, port) as served:
        expect(page.locator("#saved")).to_have_text("All saved")
        assert placed() == [1, 0]
        expect(page.locator(".message")).to_be_hidden()
        served.end()
        place(page, 0.6)
        expect(page.locator("#saved")).to_have_text("1 not saved")
        page.close(run_before_unload=False)
    with serving(tiny_weights[0], named, port):
        page = open_again(context, port, "001")
        page.wait_for_function(
            """async () => (await (await fetch('/api/project')).json()).images[0].points
              .every((row) => row[2])"""
        )
        expect(page.locator("#saved")).to_have_text("All saved")


# JSON, or not, that is no copy of an image of 32x32 pixels.
PIXELS = base64.b64encode(bytes(32 * 32)).decode()
NO_COPIES = ("{", "[]", "7", '{"points": [[1, 2]], "names": ["left"], "known": []}',
             '{"points": 3, "names": [], "known": []}', '{"tag": "none", "pixels": 1}',
             '{"tag": 1, "pixels": "AAAA", "classes": []}',
             f'{{"tag": "a\\nb", "pixels": "{PIXELS}", "classes": []}}',
             f'{{"tag": "none", "pixels": "{PIXELS}", "classes": [{{"name": "", "key": "é"}}]}}',
             f'{{"tag": "none", "pixels": "{PIXELS}", "classes": {{"__proto__": 1}}}}')  # fmt: skip


@pytest.mark.long
def test_what_a_tab_has_kept_goes_to_no_image_of_a_project_that_was_made_anew(
    context: BrowserContext, tiny_weights: tuple[Path, Path], named: Path
) -> None:
    """Its folder and names are the same. A copy that is none is put aside with a word: it kept the
    page from opening."""
    with serving(tiny_weights[0], named) as served:
        page, port = painting(context, served.address, "000", "Nothing is labeled"), served.port
        served.end()
        place(page, 0.3)
        draw(page, (0.1, 0.2), (0.9, 0.2), "b1")
        expect(page.locator("#saved")).to_have_text("2 not saved")
        page.wait_for_function(f"() => {COPIES}.length === 2")
        page.close(run_before_unload=False)
    files = ("index.json", "images/000.png", "images/001.png")
    index = json.loads((named / files[0]).read_text())
    index["images"][:2] = [
        {**new, "file": old["file"]}
        for old, new in zip(index["images"][:2], index["images"][1::-1], strict=True)
    ]
    first, second = ((named / name).read_bytes() for name in files[1:])
    for name, data in zip(files, (json.dumps(index).encode(), second, first), strict=True):
        (named / name).write_bytes(data)
    with serving(tiny_weights[0], named, port) as served:
        page = open_again(context, port, "000")
        expect(page.locator(".side")).to_contain_text("Nothing is labeled")
        expect(page.locator("#saved")).to_have_text("All saved")
        expect(page.locator("#banner")).to_be_hidden()
        copies = page.evaluate(COPIES)
        assert len(copies) == 2
        shas = [entry["pixels_sha256"][:16] for entry in index["images"][1::-1]]
        for text in NO_COPIES:
            for name in copies:  # as of the images that are there now
                new = name.replace(*shas)
                page.evaluate("([name, text]) => localStorage.setItem(name, text)", [new, text])
            page.reload()
            expect(page.locator("#banner")).to_contain_text("image 000 cannot be read")
            expect(page.locator(".side")).to_contain_text("Nothing is labeled")
            assert sorted(page.evaluate(COPIES)) == sorted(copies)
    assert not Project(named).label_files.stems


@pytest.mark.long
def test_an_image_that_is_opened_while_the_server_is_away_is_read_when_it_is_back(
    browser: Browser, tiny_weights: tuple[Path, Path], named: Path
) -> None:
    Project(named).save_mask("001", bytes(32 * 32), "none")
    with serving(tiny_weights[0], named) as served:
        page, port = painting(browser, served.address, "000", "Nothing is labeled"), served.port
        served.end()
        page.locator(".strip a", has_text="001").click()
        expect(page.locator("h1")).to_have_text("Paint Image 001")
        draw(page, (0.3, 0.5), (0.7, 0.5), "b2")  # on what it has not read
    with serving(tiny_weights[0], named, port):
        expect(page.locator(".side")).to_contain_text("Every pixel is labeled")
        expect(page.locator(".message")).to_be_hidden()
        page.evaluate(NOTE_BANNER)
        draw(page, (0.3, 0.5), (0.7, 0.5))
        assert set(np.unique(saved(page, named, "001"))) == {0, 1}
        assert page.evaluate("globalThis.shown") == []


@pytest.mark.long
def test_strokes_of_a_closed_tab_are_not_dropped_since_their_mask_has_changed(
    context: BrowserContext, tiny_weights: tuple[Path, Path], named: Path
) -> None:
    """As when a killed server has saved a stroke and not answered, and the next one came after."""
    with serving(tiny_weights[0], named) as served:
        page, port = painting(context, served.address, "000", "Nothing is labeled"), served.port
        served.end()
        draw(page, (0.3, 0.5), (0.7, 0.5), "b2")
        expect(page.locator("#saved")).to_have_text("1 not saved")
        page.wait_for_function(f"() => {COPIES}.length === 1")
        page.close(run_before_unload=False)
    Project(named).save_mask("000", bytes(32 * 32), "none")
    with serving(tiny_weights[0], named, port):
        page = open_again(context, port, "000")
        page.get_by_role("button", name="Save mine over it").click()
        expect(page.locator("#saved")).to_have_text("All saved")
        assert 1 in masks(named)["000"]
