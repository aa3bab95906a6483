"""A set that `training invert` made of photographs opens, is painted, and is learned from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from studio.depth import picture_from_depth
from tests.studio.conftest import NAMES, Served, serving
from training.images.image_set import image_set_from_folder
from training.labels.labelled_set import labelled_set


@pytest.fixture
def opened(tiny_weights: tuple[Path, Path], photographs: Path, tmp_path: Path) -> Iterator[Served]:
    """A studio of a copy of a set of photographs."""
    copy = Path(shutil.copytree(photographs, tmp_path / "set"))
    with serving(tiny_weights[0], copy) as found:
        yield found


def test_photographs_are_painted_under_their_own_names(opened: Served) -> None:
    summary = json.loads(opened.request("GET", "/api/project").body)
    entries = {entry["stem"]: entry for entry in summary["images"]}
    assert set(entries) == set(NAMES) and not summary["can_pick"]
    assert all(entry["psnr_db"] is not None for entry in entries.values())
    assert opened.request("GET", "/api/candidates").status == 409
    for value, name in enumerate(NAMES[:2]):
        stem = quote(name, safe="")
        assert opened.request("GET", f"/images/{stem}").headers["content-type"] == "image/png"
        assert (
            opened.send("POST", f"/api/images/{stem}/hold", {"tab": "11111111-tab"}).status == 204
        )
        clicked = {"points": [[16, 16]], "class_id": value}
        assert opened.send("POST", f"/api/images/{stem}/select", clicked).status == 200
        pixels, tag = opened.mask(stem)
        assert set(pixels) == {255} and len(pixels) == 32 * 32
        half = bytes([value]) * 512 + bytes([255]) * 512
        assert opened.save(stem, half, tag).status == 204
        assert opened.request("GET", f"/images/{stem}/depth").status == 404, "it has no depth"
    labels = labelled_set(image_set_from_folder(opened.folder))
    assert set(labels.stems) == set(NAMES[:2]), "training reads what was painted"
    assert opened.request("DELETE", f"/api/images/{quote(NAMES[2], safe='')}").status == 204


def test_depth_is_shown_where_the_set_has_it_and_stays_as_it_is(served: Served) -> None:
    height, width = served.studio.project.size
    folder = served.folder / "depth"
    folder.mkdir()
    (folder / "depth.toml").write_text('unit = "m"\n')
    depth = np.tile(np.linspace(1, 9, width, dtype=np.float32), (height, 1))
    depth[:4] = np.nan
    np.save(folder / "001.npy", depth)
    before = (folder / "001.npy").read_bytes()
    images = json.loads(served.request("GET", "/api/project").body)["images"]
    assert [entry["depth"] for entry in images] == [False, True, False, False]
    (served.folder / "shown.png").write_bytes(served.request("GET", "/images/001/depth").body)
    with Image.open(served.folder / "shown.png") as picture:
        shown = np.asarray(picture.convert("L")).astype(int)
    assert shown.shape == (height, width)
    assert abs(shown[8, 0] - shown[8, -1]) > 60, "near and far differ"
    for bad in ("/images/000/depth", "/images/..%2f..%2findex/depth", "/images/009/depth"):
        assert served.request("GET", bad).status == 404, bad
    np.save(folder / "001.npy", np.full((height, width), np.inf, np.float32))
    refused = served.request("GET", "/images/001/depth")
    assert refused.status == 409 and "infinite depth" in refused.text
    (folder / "001.npy").write_bytes(before)


def test_depth_without_a_known_pixel_or_without_a_range_is_a_picture() -> None:
    for depth in (np.full((4, 6), np.nan, np.float32), np.full((4, 6), 3, np.float32)):
        assert picture_from_depth(depth).size == (6, 4)
