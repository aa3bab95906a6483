"""A chromium without a window, the studio as a user starts it, and what is done in its page."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set

CHECKOUT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")
WAIT_MS = 600_000  # for hangs; a quiet machine needs a few seconds, learning on a busy one minutes
IGNORED = 255
Mask = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@contextmanager
def launched() -> Iterator[Browser]:
    """Debian's chromium; what is expected of its pages may take as long as WAIT_MS."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


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


def painting(browser: Browser | BrowserContext, address: str, stem: str, text: str) -> Page:
    """A new tab that shows an image, and a text beside it; address: with the token."""
    page = browser.new_page()
    page.set_viewport_size({"width": 1280, "height": 720})
    page.set_default_timeout(WAIT_MS)
    page.goto(address)
    page.goto(f"{address.partition('?')[0]}#paint/{stem}")
    expect(page.locator(".side")).to_contain_text(text)
    return page


def draw(
    page: Page,
    start: tuple[float, float],
    end: tuple[float, float],
    keys: str = "",
    up: bool = True,
) -> None:
    """A stroke of the mouse between two places, as shares of the picture on the canvas, with the
    tool and the class of some keys."""
    for key in keys:
        page.keyboard.press(key)
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


def saved(page: Page, project: Path, stem: str = "000") -> Mask:
    """The mask of an image on disk, once the page says that all is saved."""
    expect(page.locator("#saved")).to_have_text("All saved")
    return masks(project)[stem]


def wait_until_it_hears(page: Page) -> None:
    """Until a page learns of what happens by events alone: it has read the project once more, since
    its stream is open."""
    page.wait_for_function(
        """() => performance.getEntriesByType("resource")
          .filter((one) => one.name.endsWith("/api/project")).length >= 2"""
    )


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
