"""Nothing trains on an accident: what tools write, and what slips in, is read right or named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoints import classes_from_names, write_classes
from tests.training.label_files import OUTLINE, SQUARE, coco, labelme, write_json
from tests.training.sets import CLASSES, tiny_images
from training.errors import LabelError
from training.images.image_set import ImageSet
from training.labels.annotations import ReadingRules
from training.labels.labelled_set import LabelledSet, labels_and_counts
from training.labels.table import Allowed, LabelCounts

Shape = tuple[str, str, list[list[float]]]
RECTANGLE: list[list[float]] = [[3.0, 2.0], [10.0, 6.0]]


def read(images: ImageSet, **rules: Any) -> tuple[LabelledSet, LabelCounts, str]:
    labels, counts, notes = labels_and_counts(images, rules=ReadingRules(**rules))
    return labels, counts, "\n".join(notes)


def test_a_brushed_mask_of_cvat_is_its_class_and_not_ignored(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    flat = SQUARE.T.ravel()
    counts = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), 256]).tolist()
    brushed = {"segmentation": {"size": [16, 16], "counts": counts}, "iscrowd": 1}
    write_json(
        tmp_path / "masks.json",
        coco({"category_id": 3, "attributes": {"occluded": False}, **brushed}),
    )
    labels, _, notes = read(images)
    assert labels.masks is not None and labels.classes is not None
    np.testing.assert_array_equal(labels.masks[0], SQUARE)
    assert "1 regions" in notes and "--crowds ignore" in notes


def test_a_box_without_a_region_is_left_out_by_name_or_painted(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    box = {"category_id": 9, "segmentation": [], "bbox": [12, 12, 4, 4]}
    write_json(tmp_path / "masks.json", coco({"category_id": 3, "segmentation": [OUTLINE]}, box))
    labels, _, notes = read(images)
    assert labels.masks is not None
    np.testing.assert_array_equal(labels.masks[0], SQUARE)
    assert "1 x box" in notes and "--boxes paint" in notes
    painted, _, _ = read(images, boxes="paint")
    assert painted.masks is not None and (painted.masks[0][12:, 12:] == 2).all()


def test_a_root_category_that_no_annotation_has_is_no_class(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    content: dict[str, Any] = coco({"category_id": 3, "segmentation": [OUTLINE]})
    content["categories"] = [
        {"id": 0, "name": "faces-a1", "supercategory": "none"},
        {"id": 3, "name": "ear", "supercategory": "faces-a1"},
    ]
    write_json(tmp_path / "masks.json", content)
    labels, _, notes = read(images)
    assert labels.classes is not None
    assert [card.name for card in labels.classes.cards] == ["background", "ear"]
    assert "no class: 'faces-a1'" in notes


def test_keypoints_in_a_file_of_masks_are_read_or_named(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    both = {"category_id": 3, "segmentation": [OUTLINE], "keypoints": [3, 0, 2]}
    content: dict[str, Any] = coco(both)
    content["categories"][0]["keypoints"] = ["tip"]
    write_json(tmp_path / "masks.json", content)
    labels, _, _ = read(images)
    assert labels.keypoints is not None and labels.keypoint_names == ("tip",)
    assert labels.keypoints[0, 0].tolist() == [3.5, 0.5, 1]
    content["annotations"].append(dict(both, id=2, image_id=7))
    write_json(tmp_path / "masks.json", content)
    labels, _, notes = read(images)
    assert labels.keypoints is None and labels.masks is not None
    assert "keypoints left out" in notes and "two annotations of 'x/a.jpg'" in notes


@pytest.mark.parametrize("name", ["masks.json", "keypoints.json"])
def test_a_keypoint_outside_the_image_is_refused_by_name(tmp_path: Path, name: str) -> None:
    images = tiny_images(tmp_path)
    content: dict[str, Any] = coco({"category_id": 3, "keypoints": [999, 3, 2]})
    content["categories"][0]["keypoints"] = ["tip"]
    write_json(tmp_path / name, content)
    with pytest.raises(LabelError, match=r"keypoint 'tip' at \(999\.5, 3\.5\); the image is 16x16"):
        read(images)


def test_labelme_points_are_keypoints_and_its_files_may_lie_beside_the_images(
    tmp_path: Path,
) -> None:
    images = tiny_images(tmp_path)
    shapes: list[Shape] = [
        ("ear", "rectangle", RECTANGLE),
        ("eye", "point", [[4.25, 3]]),
        ("brow", "point", [[8, 3]]),
    ]
    write_json(tmp_path / "images" / "a.json", labelme(*shapes))
    write_json(tmp_path / "images" / "b.json", labelme(*shapes[:2]))
    labels, counts, _ = read(images)
    assert labels.masks is not None and labels.keypoints is not None
    np.testing.assert_array_equal(labels.masks[0], SQUARE)
    assert labels.keypoint_names == ("brow", "eye")
    assert labels.keypoints[0].tolist() == [[8, 3, 1], [4.25, 3, 1]]
    assert labels.keypoints[1, :, 2].tolist() == [0, 1]
    assert "2 of 3 images have labels: 2 with masks, 2 with keypoints" in counts.lines(2, 3)
    write_json(tmp_path / "images" / "b.json", labelme(shapes[1], shapes[1]))
    with pytest.raises(LabelError, match=r"b\.json has two keypoints 'eye'"):
        read(images)


def test_a_label_used_once_against_many_is_named_with_the_nearest(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    many: list[Shape] = [("eyebrow", "rectangle", RECTANGLE)] * 6
    write_json(tmp_path / "labelme" / "a.json", labelme(*many, ("eyebrwo", "rectangle", RECTANGLE)))
    _, _, notes = read(images)
    assert "'eyebrwo' is used 1 times" in notes and "did you mean 'eyebrow'?" in notes


def test_images_listed_without_an_annotation_are_no_background(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    content: dict[str, Any] = coco({"category_id": 3, "segmentation": [OUTLINE]})
    content["images"].append({"id": 8, "file_name": "b.png", "width": 16, "height": 16})
    write_json(tmp_path / "masks.json", content)
    labels, _, notes = read(images)
    assert labels.stems == ("a",) and "b.png); --empty background" in notes
    labels, _, _ = read(images, empty="background")
    assert labels.stems == ("a", "b") and labels.masks is not None and not labels.masks[1].any()


def test_names_match_without_what_tools_add_and_the_others_are_listed(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    names = ["images/23082be9-a.png", r"C:\data\b_png.rf.5f2ac0b6f1d54d2d8a7f0c11.jpg", "cc.png"]
    content: dict[str, Any] = coco()
    content["images"] = [
        {"id": i, "file_name": name, "width": 16, "height": 16} for i, name in enumerate(names)
    ]
    content["annotations"] = [
        {"id": i, "image_id": i, "category_id": 3, "segmentation": [OUTLINE]} for i in range(3)
    ]
    write_json(tmp_path / "masks.json", content)
    labels, _, notes = read(images)
    assert labels.stems == ("a", "b")
    assert "1 images of" in notes and "cc.png (nearest: c)" in notes
    content["images"][2]["file_name"] = "b.jpg"
    write_json(tmp_path / "masks.json", content)
    with pytest.raises(LabelError, match="has labels of the image b twice"):
        read(images)


def test_classes_without_a_pixel_and_ignored_pixels_need_their_switch(tmp_path: Path) -> None:
    counts = LabelCounts(CLASSES, 255)
    counts.add_mask(np.array([[0, 1], [255, 255]], np.uint8))
    with pytest.raises(LabelError, match=r"no pixel of corner .* --allow-empty-classes"):
        counts.check(Allowed(), "set")
    counts.check(Allowed(empty_classes=True), "set")
    counts.add_mask(np.array([[2, 255], [255, 255]], np.uint8))
    with pytest.raises(LabelError, match=r"62\.5% of the labeled pixels .* --allow-ignored"):
        counts.check(Allowed(empty_classes=True), "set")
    counts.check(Allowed(ignored=True), "set")
    assert counts.lines(2, 3)[3:] == [
        "low                1   12.5%               1",
        "high               1   12.5%               1",
        "corner             1   12.5%               1",
        "ignored            5   62.5%               0",
    ]


def test_a_background_that_regions_cover_altogether_is_no_error() -> None:
    for first, allowed in (("background", True), ("skin", False)):
        counts = LabelCounts(classes_from_names([first, "ear"]), 255)
        counts.add_mask(np.ones((2, 2), np.uint8))
        if allowed:
            counts.check(Allowed(), "set")
            continue
        with pytest.raises(LabelError, match="no pixel of skin"):
            counts.check(Allowed(), "set")


def test_masks_that_are_ignored_throughout_are_an_error_too(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    write_classes(tmp_path / "classes.toml", CLASSES)
    write_json(
        tmp_path / "labelme" / "a.json", labelme(("__ignore__", "rectangle", [[0, 0], [16, 16]]))
    )
    _, counts, _ = read(images)
    with pytest.raises(LabelError, match=r"100\.0% .* --allow-ignored"):
        counts.check(Allowed(empty_classes=True), tmp_path)
