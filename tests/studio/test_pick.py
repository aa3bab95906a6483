"""The set of images changes in one step, and no name comes again."""

import json
import os
import shutil
from pathlib import Path

import pytest

from bundle.files import replace_file
from studio.pick import finish_change
from tests.studio.conftest import OTHER_TAB, Served, painted
from training.images.image_set import image_set_from_folder


def test_images_are_added_and_taken_out_in_one_step(
    served: Served, tiny_weights: tuple[Path, Path]
) -> None:
    """The set stays one that the commands read; a change that was cut short is finished."""
    for order in ("typical", "farthest"):
        found = json.loads(served.request("GET", f"/api/candidates?order={order}").body)
        assert len(set(found)) == 24
    drawn = served.request("GET", f"/candidates/{found[0]}")
    assert served.send("POST", "/api/images", {"indices": found[:1]}).status == 204
    assert served.request("GET", "/images/004").body == drawn.body
    served.save("001", painted(served), '"none"')
    assert served.request("DELETE", "/api/images/001").status == 409, "it has a label"
    assert served.request("DELETE", "/api/images/000").status == 204
    images = image_set_from_folder(served.folder)
    images.check_files()
    assert images.stems == ["001", "002", "003", "004"]
    assert served.studio.project.images.stems == images.stems
    for bad in ([], [-1], [1 << 40], ["a"], list(range(99))):
        assert served.send("POST", "/api/images", {"indices": bad}).status in (400, 404), bad
    # The process is killed between the two files: the next one finishes what was complete.
    work = served.folder / "studio"
    for name, next_name in (("index.json", "next-index.json"), ("latents.npy", "next-latents.npy")):
        shutil.copy(served.folder / name, work / next_name)
    replace_file(served.folder / "index.json", b"{}")
    os.unlink(served.folder / "latents.npy")
    finish_change(served.folder)
    assert image_set_from_folder(served.folder).stems == images.stems


def test_no_name_of_an_image_comes_again(served: Served) -> None:
    """A tab that still had strokes for the image which was taken out saved them on the next one."""
    assert served.send("POST", "/api/images/003/hold", {"tab": OTHER_TAB}).status == 204
    assert served.request("DELETE", "/api/images/003").status == 204
    found = json.loads(served.request("GET", "/api/candidates").body)
    for index in found[:2]:
        assert served.send("POST", "/api/images", {"indices": [index]}).status == 204
        stale = served.save("003", painted(served), '"none"', x_studio_tab=OTHER_TAB)
        assert stale.status == 404
        last = served.studio.project.images.stems[-1]
        assert served.request("DELETE", f"/api/images/{last}").status == 204
        served.studio.project.replace_images(image_set_from_folder(served.folder))  # as a start
    assert last == "005" and not served.studio.project.label_files.masks


def test_an_image_that_another_program_has_taken_away_is_named(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    """It was "Internal Server Error", with a traceback in the terminal; its labels stay."""
    (served.folder / "images" / "000.png").unlink()
    for path in ("/images/000", "/thumbnails/000"):
        answer = served.request("GET", path)
        assert answer.status == 404 and "images/000.png is no longer there" in answer.text
    mask, tag = served.mask("000")
    assert served.save("000", bytes(len(mask)), tag).status == 204
    assert capfd.readouterr().err == ""
