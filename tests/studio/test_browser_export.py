"""The page's button writes a bundle that serves: by the commands and the loop that it shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from bundle.open import open_bundle
from examples.demo.serving import address_from_ready_line
from tests.studio.chromium import CHECKOUT, draw, painting, refuse_violations
from tests.studio.conftest import Served

# In front of the page's loop, which has no end of its own.
LOOP_OF_THREE_STEPS = """
import sys
from torch.optim.optimizer import register_optimizer_step_post_hook
steps = []
def note(*ignored):
    steps.append(float(loss))
    if len(steps) == 3:
        print(*steps, flush=True)
        sys.exit(0)
register_optimizer_step_post_hook(note)
"""
SMALLER = {
    "training": ["--steps", "20", "--members", "2"],
    "exporting": ["--calibrate", "64", "--no-half", "--parity-samples", "1"],
}


@pytest.mark.long
def test_from_strokes_to_a_served_bundle_that_trains(browser: Browser, served: Served) -> None:
    """Less training and fewer samples than a user gets. A refusal names what is missing."""
    export = served.studio.export
    export.commands = [(phase, [*words, *SMALLER[phase]]) for phase, words in export.commands]
    refused = served.request("POST", "/api/export")
    assert refused.status == 409 and "no image has a label" in refused.text
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    page.keyboard.press("b")
    page.keyboard.press("2")
    draw(page, (0.1, 0.2), (0.9, 0.2))
    expect(page.locator("#steps")).to_contain_text("1 labeled")
    refused = served.request("POST", "/api/export")
    assert refused.status == 409 and "no image has a pixel of ground" in refused.text
    page.keyboard.press("1")
    draw(page, (0.1, 0.8), (0.9, 0.8))
    expect(page.locator("#saved")).to_have_text("All saved")

    page.get_by_role("navigation", name="Steps").get_by_text("Export").click()
    page.get_by_role("button", name="Write the bundle").click()
    expect(page.get_by_role("button", name=re.compile("ing "))).to_be_disabled()
    assert served.request("POST", "/api/export").status == 409, "one at a time"
    expect(page.get_by_role("button", name="Write it again")).to_be_enabled()
    refuse_violations(page)
    serve, loop = page.locator(".code pre").all_text_contents()
    assert str(served.folder / "bundle") in serve
    assert open_bundle(served.folder / "bundle").manifest.calibrations
    refuse_untrainable(serve, loop)


def refuse_untrainable(serve: str, loop: str) -> None:
    """Runs the command that serves and the training loop as the page shows them, but for the port,
    which another program may have; the loop is ended after three steps."""
    words = shlex.split(serve.replace(":50051", ":0"))
    assert words[0] == ".venv/bin/python"
    with subprocess.Popen(
        [sys.executable, *words[1:]], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = address_from_ready_line(server.stdout.readline())
            text = LOOP_OF_THREE_STEPS + loop.replace("localhost:50051", address)
            done = subprocess.run(
                [sys.executable, "-c", text], cwd=CHECKOUT, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            losses = [float(line) for line in done.stdout.split()]
            assert len(losses) == 3 and all(np.isfinite(losses))
        finally:
            server.terminate()
