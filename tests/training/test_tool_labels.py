"""Labels that the tools' own code wrote (tool_labels/) are read as what was drawn."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from checkpoints import classes_from_names
from tests.training.tool_labels import scene
from training.errors import LabelError
from training.labels.annotations import ReadingRules
from training.labels.formats import Format, sources_from_path
from training.labels.label_folder import LabelFolder, import_labels, label_folder
from training.labels.label_folder import pictures_from_folder as pictures_of
from training.labels.table import LabelCounts

TOOLS = Path(__file__).parent / "tool_labels"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for stem in ("000", "001"):
        scene.picture(folder / f"{stem}.png")
    return folder


def read(
    images: Path, out: Path, name: Format, path: str | Path, rules: ReadingRules | None = None
) -> tuple[LabelFolder, LabelCounts, str]:
    pictures, rules = pictures_of(images), rules or ReadingRules()
    sources = sources_from_path(name, TOOLS / path, None, rules)
    counts, _, notes = import_labels(sources, pictures, None, rules, out)
    return label_folder(out, pictures), counts, "\n".join(notes)


def iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cvat", "datumaro/coco_masks"),
        ("coco", "datumaro/coco_masks/annotations/instances_default.json"),
        ("cvat", "datumaro/cvat_masks/default.xml"),
        ("cvat", "datumaro/voc_masks"),
        ("cvat", "datumaro/cvat_segmentation_mask"),
        ("labelstudio", "label_studio/brush.json"),
        ("labelstudio", "label_studio/brush_min.json"),
        ("labelstudio", "label_studio/png"),
        ("labelme", "labelme"),
    ],
)
def test_masks_are_what_was_drawn_pixel_for_pixel(
    images: Path, tmp_path: Path, name: Format, path: str
) -> None:
    labels, counts, _ = read(images, tmp_path, name, path)
    assert labels.classes is not None
    assert [card.name for card in labels.classes.cards] == ["background", "ear", "eye"]
    for stem in ("000", "001"):
        np.testing.assert_array_equal(labels.mask(stem), scene.ids(stem))
    assert counts.pixels[255] == 0


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("coco", "datumaro/coco_polygon"),
        ("labelstudio", "label_studio/shapes.json"),
        ("labelstudio", "label_studio/shapes_min.json"),
        ("labelstudio", "label_studio/coco.json"),
    ],
)
def test_polygons_fill_the_pixels_between_their_corners(
    images: Path, tmp_path: Path, name: Format, path: str
) -> None:
    labels, _, _ = read(images, tmp_path, name, path)
    mask = labels.mask("000")
    assert mask is not None
    np.testing.assert_array_equal(mask == 1, scene.masks("000")["ear"])


def test_polygons_of_ultralytics_converter_run_through_centers_of_pixels(
    images: Path, tmp_path: Path
) -> None:
    """They miss the last row and column, and holes; at 48 pixels that is a few percent."""
    labels, _, _ = read(images, tmp_path, "yolo", "ultralytics")
    mask = labels.mask("000")
    assert mask is not None and iou(mask > 0, scene.ids("000") > 0) > 0.88


def test_a_mask_that_datumaro_calls_a_crowd_can_be_ignored(images: Path, tmp_path: Path) -> None:
    labels, _, notes = read(
        images, tmp_path, "cvat", "datumaro/coco_masks", ReadingRules(crowds="ignore")
    )
    assert "3 regions" in notes and "are ignored pixels" in notes
    mask = labels.mask("000")
    assert mask is not None and set(np.unique(mask)) == {0, 255}


@pytest.mark.parametrize(
    ("name", "path"),
    [("cvat", "datumaro/coco_points"), ("labelme", "labelme")],
)
def test_keypoints_are_where_they_were_put(
    images: Path, tmp_path: Path, name: Format, path: str
) -> None:
    labels, _, _ = read(images, tmp_path, name, path)
    half = 0.5 if name == "cvat" else 0  # COCO puts centers of pixels at whole numbers
    assert labels.keypoint_names == ("tip", "toe")
    x, y = scene.POINTS["000"]["toe"]
    np.testing.assert_allclose(labels.points["000"][1], [x + half, y + half, 1])
    assert labels.points["001"][:, 2].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "path"), [("coco", "datumaro/coco_boxes"), ("yolo", "datumaro/yolo_boxes")]
)
def test_boxes_are_left_out_by_name_or_painted(
    images: Path, tmp_path: Path, name: Format, path: str
) -> None:
    with pytest.raises(LabelError, match=r"no region .* left out: 3 x box .*--boxes paint"):
        read(images, tmp_path / "a", name, path)
    rules = ReadingRules(boxes="paint")
    labels, _, _ = read(images, tmp_path / "b", name, path, rules)
    mask = labels.mask("000")
    assert mask is not None
    np.testing.assert_array_equal(mask > 0, scene.masks("000")["ear"])


def test_labelme_itself_draws_the_same_but_for_the_edges_of_polygons() -> None:
    """LabelMe's own rasterizer includes the corners' pixels, so one row and column more."""
    drawn = np.array(Image.open(TOOLS / "labelme" / "000_as_labelme_draws.png"))
    assert iou(drawn == 1, scene.ids("000") == 1) > 0.85
    drawn = np.array(Image.open(TOOLS / "labelme" / "001_as_labelme_draws.png"))
    np.testing.assert_array_equal(drawn, scene.ids("001"))


def test_png_of_label_studio_need_the_export_that_says_which_image_a_task_is(
    images: Path, tmp_path: Path
) -> None:
    shutil.copytree(TOOLS / "label_studio" / "png", tmp_path / "png")
    (tmp_path / "png" / "tasks.json").unlink()
    with pytest.raises(LabelError, match=r"0 \.json files; put the JSON or JSON-MIN export"):
        read(images, tmp_path, "labelstudio", tmp_path / "png")


def test_classes_of_a_palette_have_the_colors_of_the_tool(images: Path, tmp_path: Path) -> None:
    labels, _, _ = read(images, tmp_path, "cvat", "datumaro/cvat_segmentation_mask")
    assert labels.classes is not None
    assert labels.classes.cards[1].color == 250 << 16 | 50 << 8 | 83
    assert labels.classes.cards[0] == classes_from_names(["background"]).cards[0]
