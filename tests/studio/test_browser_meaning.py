"""What strokes mean in a real browser while classes change, and which copies are whose."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from bundle.files import replace_file
from tests.studio.chromium import WAIT_MS, draw, painting, saved, wait_until_it_hears
from tests.studio.conftest import OTHER_TAB, Served, classes, serving
from tests.studio.test_browser_saving import COPIES, EMPTY, FILL

LINE = ((0.1, 0.5), (0.9, 0.5))


def replace_last(served: Served, *names: str) -> None:
    """Renames all classes but the last, which another one replaces."""
    content = classes(*names)
    content["classes"][-1]["key"] = None
    assert served.change("classes", content).status == 204


@pytest.mark.long
def test_the_rest_of_a_refused_mask_keeps_its_classes_whatever_their_names_are_now(
    browser: Browser, served: Served
) -> None:
    """A name that two classes have had made one of both."""
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    wait_until_it_hears(page)
    draw(page, (0.1, 0.2), (0.9, 0.2), "b1")
    draw(page, (0.1, 0.8), (0.9, 0.8), "2")
    before = saved(page, served.folder)
    assert set(np.unique(before)) == {0, 1, 255}
    first = classes("ground", "figure")
    for gone, then in (("hat", classes("figure", "ground")), ("cap", classes("ground", "cap"))):
        first["classes"][2:] = classes("", "", gone)["classes"][2:]
        assert served.change("classes", first).status == 204
        expect(page.locator(".classes")).to_contain_text(gone)
        draw(page, *LINE, "3", up=False)
        assert served.change("classes", then).status == 204
        expect(page.locator(".message")).to_contain_text(f"{gone} is no longer class 3")
        page.mouse.up()
        page.get_by_role("button", name=f"Save mine without {gone}").click()
        assert (saved(page, served.folder) == before).all()
        first = then


@pytest.mark.long
def test_an_image_is_painted_by_the_classes_that_another_program_has_written_it_by(
    browser: Browser, served: Served
) -> None:
    """A tab that had not heard of them said that the ids of the file were of the older ones."""
    both = np.repeat(np.array([0, 1], np.uint8), served.pixels // 2).reshape(32, 32)
    for stem in ("000", "001"):
        assert served.save(stem, both.tobytes(), '"none"').status == 204
    page = painting(browser, served.address, "000", "Every pixel is labeled")
    wait_until_it_hears(page)
    cards = "".join(
        f'[[classes]]\nname = "{name}"\ncolor = "#00000{n}"\n'
        for n, name in enumerate(("figure", "ground"))
    )
    replace_file(served.folder / "classes.toml", f"ignore_id = 255\n{cards}".encode())
    Image.fromarray(1 - both).save(served.folder / "masks/001.png")
    page.locator(".strip a", has_text="001").click()
    expect(page.locator(".class").nth(1)).to_contain_text("ground")
    expect(page.locator(".side")).to_contain_text("Every pixel is labeled")
    draw(page, (0.1, 0.2), (0.9, 0.2), "b2")
    after = saved(page, served.folder, "001")
    assert (after[16:] == 0).all() and set(np.unique(after[:16])) == {1}, "figure is below"


@pytest.mark.long
def test_strokes_that_wait_keep_their_classes_when_their_image_is_opened_again(
    browser: Browser, served: Served
) -> None:
    """The next stroke said that all were made by the classes of now."""
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    wait_until_it_hears(page)
    page.route(
        "**/mask", lambda one: one.abort() if one.request.method == "PUT" else one.continue_()
    )
    draw(page, *LINE, "b2")
    expect(page.locator("#banner")).to_contain_text("The server is away")
    replace_last(served, "ground", "sky")
    expect(page.locator(".side")).to_contain_text("sky")
    for stem in ("001", "000"):
        page.locator(".strip a", has_text=stem).click()
        expect(page.locator("h1")).to_have_text(f"Paint Image {stem}")
    expect(page.locator(".side")).to_contain_text("% unlabeled")
    draw(page, (0.1, 0.2), (0.9, 0.2), "b1")
    page.unroute("**/mask")
    expect(page.locator(".side")).to_contain_text("Not saved: the classes have changed")
    page.get_by_role("button", name="Save mine without figure").click()
    assert set(np.unique(saved(page, served.folder))) == {0, 255}


@pytest.mark.long
def test_nothing_is_painted_in_a_class_that_came_after_it_was_chosen(
    browser: Browser, served: Served
) -> None:
    """A selection that was on its way was painted as the class that had taken the id; a class that
    was gone stayed chosen."""
    page = painting(browser, served.address, "000", "Nothing is labeled yet")
    wait_until_it_hears(page)
    held: list[Route] = []
    page.route("**/select", lambda one: held.append(one))
    draw(page, (0.5, 0.5), (0.5, 0.5), "s2")
    while not held:
        page.wait_for_timeout(20)
    replace_last(served, "ground", "sky")
    expect(page.locator(".message")).to_contain_text("figure is no longer class 2; ground is")
    held[0].continue_()
    expect(page.locator(".message")).to_contain_text("class of that selection is gone")
    expect(page.locator("#saved")).to_have_text("All saved")
    assert not served.studio.project.label_files.masks
    page.keyboard.press("2")
    assert served.change("classes", classes("ground")).status == 204
    expect(page.locator(".message")).to_contain_text("sky is no longer class 2; ground is")
    draw(page, *LINE, "b")
    assert 0 in saved(page, served.folder)


def keep_points(page: Page) -> None:
    """Leaves a copy of points of image 000 in the browser, as a tab that was closed."""
    copy = {"points": [[8, 8, 1]], "names": ["left"], "known": ["null"]}
    page.evaluate(
        """async (copy) => {
          const { keepCopy } = await import("/page/copies.js");
          const { entryOf } = await import("/page/store.js");
          const { known, ...value } = copy;
          keepCopy({ kind: "points", stem: "000", sha: entryOf("000").sha, value, known });
        }""",
        copy,
    )


@pytest.mark.long
def test_points_that_a_closed_tab_has_kept_wait_while_another_tab_holds_their_image(
    browser: Browser, served: Served
) -> None:
    """They stayed "not saved" in a tab that does not show the image, and were saved over newer ones
    as soon as it did."""
    served.change("keypoints", {"names": ["left"], "skeleton": []})
    served.open_stream(OTHER_TAB)
    served.send("POST", "/api/images/000/hold", {"tab": OTHER_TAB})
    page = painting(browser, served.address, "001", "Nothing is labeled yet")
    keep_points(page)
    page.reload()
    expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")
    wait_until_it_hears(page)
    expect(page.locator("#saved")).to_have_text("All saved")
    assert served.place("000", [[4, 4, 1]], x_studio_tab=OTHER_TAB).status == 204
    page.locator(".strip a", has_text="000").click()
    page.get_by_role("button", name="Take it over").click()
    expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")
    expect(page.locator("#saved")).to_have_text("All saved")
    known = served.studio.project.points("000")
    assert known is not None and known[0].tolist() == [4, 4, 1]


@pytest.mark.long
def test_points_that_a_closed_tab_has_kept_are_saved_once_their_image_is_free(
    browser: Browser, served: Served
) -> None:
    """A tab that is loaded again finds its image held by itself as it was before: they waited for
    the next page that was loaded."""
    served.change("keypoints", {"names": ["left"], "skeleton": []})
    page = painting(browser, served.address, "001", "Nothing is labeled yet")
    stream = served.open_stream(OTHER_TAB)
    served.send("POST", "/api/images/000/hold", {"tab": OTHER_TAB})
    keep_points(page)
    page.reload()
    expect(page.locator(".side")).to_contain_text("Nothing is labeled yet")
    wait_until_it_hears(page)
    expect(page.locator("#saved")).to_have_text("All saved")
    assert served.studio.project.points("000") is None
    stream.close()
    served.streams.pop().close()
    page.wait_for_function(f"() => !{COPIES}.length")
    known = served.studio.project.points("000")
    assert known is not None and known[0].tolist() == [8, 8, 1]


@pytest.mark.long
@pytest.mark.parametrize("folders", [("a/set", "b/set"), ("set 2", "set")])
def test_what_a_tab_has_kept_of_one_project_is_neither_used_nor_removed_by_another(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, folders: tuple[str, str],
) -> None:  # fmt: skip
    """As of the same images, below another folder of the shell, or beside it, by a longer name."""
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    for folder in folders:
        shutil.copytree(project, tmp_path / folder)

    def enter(folder: str) -> Path:
        monkeypatch.chdir((tmp_path / folder).parent)
        return Path((tmp_path / folder).name)

    with serving(tiny_weights[0], enter(folders[0])) as served:
        page, port = painting(context, served.address, "000", "Nothing is labeled"), served.port
        served.end()
        draw(page, *LINE, "b2")
        page.wait_for_function(f"() => {COPIES}.length === 1")
        page.close(run_before_unload=False)
    with serving(tiny_weights[0], enter(folders[1]), port) as served:
        page = painting(context, served.address, "000", "Nothing is labeled")
        expect(page.locator(".message")).to_be_hidden()
        served.end()
        page.evaluate(FILL)
        draw(page, *LINE, "b1")
        expect(page.locator("#banner")).to_contain_text("no room to keep more")
        page.evaluate(EMPTY)
        assert len(page.evaluate(COPIES)) == 1
        page.close(run_before_unload=False)
    kept = enter(folders[0])
    with serving(tiny_weights[0], kept, port) as served:
        page = painting(context, served.address, "000", "% unlabeled")
        expect(page.locator(".message")).to_contain_text("are back")
        assert 1 in saved(page, kept)


@pytest.mark.long
def test_an_image_may_have_a_name_that_every_object_of_the_page_has(
    browser: Browser, tiny_weights: tuple[Path, Path], project: Path
) -> None:
    """It was held by another tab, for ever."""
    index = project / "index.json"
    index.write_text(index.read_text().replace('"001.png"', '"constructor.png"'))
    (project / "images/001.png").rename(project / "images/constructor.png")
    with serving(tiny_weights[0], project) as served:
        page = painting(browser, served.address, "constructor", "Image constructor")
        expect(page.locator(".strip a", has_text="constructor")).to_contain_text("to do")
        draw(page, *LINE, "b1")
        assert 0 in saved(page, project, "constructor")
