"""Clicks, keys and other programs in an odd order, in a real browser: no stroke is lost."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Route, expect

from tests.studio.chromium import IGNORED, WAIT_MS, draw, masks, painting, saved
from tests.studio.conftest import OTHER_TAB, Served, classes


@pytest.mark.long
def test_a_stroke_that_goes_on_is_kept_when_its_tool_or_its_image_is_left(
    browser: Browser, served: Served
) -> None:
    """It was taken back without a word, and the person painted it again."""
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    draw(page, (0.1, 0.2), (0.5, 0.2), "b1", up=False)
    page.keyboard.press("2")
    page.mouse.wheel(0, -40)  # zooms within the stroke
    page.keyboard.press("e")
    page.mouse.move(660, 500, steps=4)  # with the button of the mouse down
    page.mouse.up()
    first = saved(page, served.folder)
    assert set(np.unique(first)) == {0, IGNORED}, "of the class that it began with"
    page.keyboard.press("r")
    draw(page, (0.1, 0.2), (0.3, 0.2), up=False)
    page.keyboard.press("2")  # a class, and so the brush
    page.mouse.up()
    second = saved(page, served.folder)
    assert (second[first == IGNORED] == IGNORED).all() and (second != first).any(), "erased"
    draw(page, (0.1, 0.7), (0.5, 0.7), up=False)
    page.keyboard.press("PageDown")
    expect(page.locator("h1")).to_have_text("Paint Image 001")
    page.mouse.up()
    third = saved(page, served.folder)
    assert (third[third != second] == 1).all() and (third != second).any()
    page.go_back()
    expect(page.locator(".side")).to_contain_text("% unlabeled")
    for step in (second, first):
        page.keyboard.press("Control+z")
        assert (saved(page, served.folder) == step).all()


@pytest.mark.long
def test_undo_takes_back_the_last_corner_of_a_polygon_that_is_open(
    browser: Browser, served: Served
) -> None:
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    draw(page, (0.1, 0.1), (0.2, 0.1), "b1")
    before = saved(page, served.folder)
    page.keyboard.press("p")
    page.keyboard.press("2")
    for corner in ((0.4, 0.4), (0.9, 0.4), (0.9, 0.9), (0.1, 0.9)):
        draw(page, corner, corner)
    page.keyboard.press("Control+z")
    page.keyboard.press("Enter")
    after = saved(page, served.folder)
    assert (after[before == 0] == 0).all(), "the stroke before is there"
    painted = np.argwhere(after == 1)
    assert len(painted) and (painted[:, 1] >= painted[:, 0] - 2).all(), "a triangle"


@pytest.mark.long
def test_a_picture_that_is_gone_is_named_and_opens_when_it_is_back(
    browser: Browser, served: Served
) -> None:
    path = served.folder / "images" / "001.png"
    data = path.read_bytes()
    path.unlink()
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    page.locator(".strip a", has_text="001").click()
    expect(page.locator(".message")).to_contain_text("images/001.png is no longer there")
    path.write_bytes(data)
    page.locator(".strip a", has_text="000").click()
    expect(page.locator("h1")).to_have_text("Paint Image 000")
    page.locator(".strip a", has_text="001").click()
    expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")


@pytest.mark.long
def test_strokes_on_a_mask_that_another_program_has_changed_outlive_their_tab(
    browser: Browser, served: Served
) -> None:
    """The person had not said yet which of the two counts."""
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    page = painting(context, served.address, "000", "Nothing is labeled yet")
    draw(page, (0.1, 0.2), (0.9, 0.2), "b1")
    saved(page, served.folder)
    other = np.ones((32, 32), np.uint8)
    Image.fromarray(other).save(served.folder / "masks" / "000.png")
    draw(page, (0.1, 0.8), (0.9, 0.8))
    expect(page.locator(".side")).to_contain_text("has changed on disk")
    page.close(run_before_unload=False)
    assert (masks(served.folder)["000"] == other).all()
    page = painting(context, served.address, "000", "has changed on disk")
    page.get_by_role("button", name="Save mine over it").click()
    mine = saved(page, served.folder)
    assert (mine[:16] == 0).any() and (mine[16:] == 0).any(), "both strokes"
    Image.fromarray(other).save(served.folder / "masks" / "000.png")
    draw(page, (0.1, 0.5), (0.9, 0.5))
    page.get_by_role("button", name="Load what is on disk").click()
    expect(page.locator(".side")).to_contain_text("Every pixel is labeled")
    page.reload()
    expect(page.locator(".side")).to_contain_text("Every pixel is labeled")
    assert (masks(served.folder)["000"] == other).all()


@pytest.mark.long
def test_an_image_that_was_taken_out_meanwhile_is_said_to_be_and_holds_nothing_up(
    browser: Browser, served: Served
) -> None:
    """Its tab had a stroke that could be neither saved nor given up, and asked at its end."""
    page = painting(browser, served.address, "001", "Nothing is labeled yet")
    draw(page, (0.1, 0.2), (0.9, 0.2), "b1", up=False)
    assert served.request("DELETE", "/api/images/001").status == 204
    expect(page.locator(".side")).to_contain_text("no longer in the set")
    page.mouse.up()
    expect(page.locator(".message")).to_contain_text("there is no image '001'")
    expect(page.locator("#saved")).to_have_text("All saved")
    draw(page, (0.1, 0.4), (0.9, 0.4))
    expect(page.locator("#saved")).to_have_text("All saved")
    page.locator(".strip a", has_text="000").click()
    expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")
    assert not served.studio.project.label_files.masks

    # So with one that waits since another tab has taken the image over.
    expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")
    served.open_stream(OTHER_TAB)
    draw(page, (0.1, 0.2), (0.9, 0.2), up=False)
    take = {"tab": OTHER_TAB, "take": True}
    assert served.send("POST", "/api/images/000/hold", take).status == 204
    expect(page.locator(".side")).to_contain_text("Another tab holds this image")
    page.mouse.up()
    expect(page.locator("#saved")).to_have_text("1 not saved")
    assert served.request("DELETE", "/api/images/000").status == 204
    expect(page.locator("#saved")).to_have_text("All saved")


@pytest.mark.long
def test_what_is_typed_stays_when_another_tab_has_changed_the_classes(
    browser: Browser, served: Served
) -> None:
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    page.get_by_role("button", name="Edit").click()
    name = page.get_by_label("Name of class 2")
    name.fill("mine")
    assert served.change("classes", classes("ground", "figure", "sky")).status == 204
    save = page.get_by_role("button", name="Save", exact=True)
    save.click()
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("now they are: ground, figure, sky")
    expect(name).to_have_value("mine")
    save.click()
    page.get_by_role("button", name="Save mine over it").click()
    expect(dialog).to_be_hidden()
    assert [card.name for card in served.studio.project.classes] == ["ground", "mine"]


@pytest.mark.long
def test_the_second_click_of_a_double_click_takes_out_no_other_image(
    browser: Browser, served: Served
) -> None:
    """The next image had come to the place of the first."""
    page = browser.new_page()
    page.goto(served.address)
    page.goto(f"http://127.0.0.1:{served.port}/#pick")
    sent: list[str] = []
    page.on("request", lambda one: sent.append(one.url) if one.method == "DELETE" else None)
    box = page.get_by_label("Take 000 out of the set").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for click in (1, 2):
        page.mouse.down(click_count=click)
        page.mouse.up(click_count=click)
        expect(page.get_by_label("Take 000 out of the set")).to_have_count(0)
    page.evaluate("1")
    assert len(sent) == 1 and len(served.studio.project.images) == 3


@pytest.mark.long
def test_a_key_that_is_held_down_accepts_no_further_proposal(
    browser: Browser, proposed: Served
) -> None:
    """Nobody has seen those."""
    page = painting(browser, proposed.address, "000", "the ensemble's proposal")
    page.keyboard.down("n")
    title = page.locator("h1")
    expect(title).not_to_have_text("Paint Image 000")
    second = title.text_content()
    expect(page.locator(".side")).to_contain_text("the ensemble's proposal")
    page.keyboard.down("n")  # repeated
    page.keyboard.up("n")
    assert title.text_content() == second
    expect(page.locator("#saved")).to_have_text("All saved")
    assert list(masks(proposed.folder)) == ["000"]


@pytest.mark.long
def test_a_proposal_that_comes_late_does_not_go_over_a_stroke(
    browser: Browser, proposed: Served
) -> None:
    page = painting(browser, proposed.address, "000", "the ensemble's proposal")
    held: list[Route] = []
    page.route("**/proposal", lambda route: held.append(route))
    blank = bytes(proposed.pixels)
    assert proposed.save("001", blank, '"none"', x_studio_tab=OTHER_TAB).status == 204
    while not held:  # the learner has told something
        page.wait_for_timeout(20)
    draw(page, (0.2, 0.3), (0.8, 0.3), "b1")
    first = saved(page, proposed.folder)
    with page.expect_response("**/proposal"):
        held[0].continue_()
    page.evaluate("new Promise((done) => setTimeout(done))")  # it has been read
    draw(page, (0.2, 0.7), (0.8, 0.7))
    second = saved(page, proposed.folder)
    assert (first == 0).any() and (second[first == 0] == 0).all()


@pytest.mark.long
def test_a_round_begins_when_a_proposal_is_accepted_and_the_next_image_opened(
    browser: Browser, proposed: Served
) -> None:
    """Not one image later: the label has to be saved before the learner is asked."""
    half = bytes(32 * 16) + b"\1" * 32 * 16
    assert proposed.save("000", half, '"none"', x_studio_tab=OTHER_TAB).status == 204
    page = painting(browser, proposed.address, "001", "the ensemble's proposal")
    page.keyboard.press("n")
    expect(page.locator("#learning")).to_have_text(re.compile("Learning: [a-z0-9]|round 2"))
    assert "001" in proposed.studio.project.label_files.masks
