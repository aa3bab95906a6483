"""Each tool's details: a small file as the tool writes it, and the right answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from checkpoints import ClassCard, Classes, write_classes
from labelmint.datasets.run_lengths import brush_from_mask
from tests.training.label_files import OUTLINE, SQUARE, coco, labelme, write_json
from training.errors import LabelError
from training.labels.annotations import ReadingRules
from training.labels.formats import Format, sources_from_path
from training.labels.label_folder import LabelFolder, import_labels, label_folder
from training.labels.label_folder import pictures_from_folder as pictures_of

COLORS = Classes(
    [ClassCard("background", 0), ClassCard("high", 0xFF0000), ClassCard("low", 0xFF00)]
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """a.png and b.png, of 16 pixels."""
    (tmp_path / "images").mkdir()
    for stem in "ab":
        Image.new("RGB", (16, 16)).save(tmp_path / "images" / f"{stem}.png")
    return tmp_path / "images"


def read(
    images: Path, name: Format, path: Path, classes: Classes | None = None, **rules: Any
) -> LabelFolder:
    pictures, chosen = pictures_of(images), ReadingRules(**rules)
    sources = sources_from_path(name, path, classes, chosen)
    import_labels(sources, pictures, classes, chosen, images.parent / "out")
    return label_folder(images.parent / "out", pictures)


def mask_of(labels: LabelFolder, stem: str = "a") -> NDArray[np.uint8]:
    mask = labels.mask(stem)
    assert mask is not None
    return mask


def cvat(images: Path, *shapes: str, labels: str = "", head: str = "") -> Path:
    path = images.parent / "annotations.xml"
    meta = f"<meta><task><labels>{labels}</labels></task></meta>" if labels else ""
    path.write_text(
        f'<?xml version="1.0"?>{head}<annotations>{meta}<image id="0" name="sub/a.png" width="16" '
        f'height="16">{"".join(shapes)}</image></annotations>'
    )
    return path


POLYGON = '<polygon label="high" points="3,2;10,2;10,6;3,6" z_order="{}" {}/>'


def test_cvat_shapes_of_a_higher_z_order_cover_and_outside_ones_are_not_there(
    images: Path,
) -> None:
    path = cvat(
        images,
        POLYGON.format(1, 'occluded="1"'),
        '<box label="low" xtl="0" ytl="0" xbr="16" ybr="16" z_order="0"/>',
        '<polygon label="low" points="0,0;16,0;16,16" z_order="9" outside="1"/>',
        '<tag label="good"/>',
    )
    mask = mask_of(read(images, "cvat", path))
    np.testing.assert_array_equal(mask, np.where(SQUARE, 1, 2))


def test_cvat_ellipses_boxes_turn_clockwise_around_their_center(images: Path) -> None:
    path = cvat(images, '<ellipse label="e" cx="8" cy="8" rx="6" ry="2" rotation="90"/>')
    mask = mask_of(read(images, "cvat", path))
    assert mask[2:14, 7:9].all() and not mask[:, :5].any() and not mask[7, 11:].any()
    path = cvat(images, '<box label="e" xtl="2" ytl="6" xbr="14" ybr="10" rotation="45"/>')
    mask = mask_of(read(images, "cvat", path))
    assert mask[4, 4] and mask[11, 11] and not mask[4, 11] and not mask[11, 4]


def test_cvat_skeletons_and_points_are_keypoints_with_absent_ones(images: Path) -> None:
    path = cvat(
        images,
        '<skeleton label="face"><points label="l" points="3.5,4" outside="0" occluded="1"/>'
        '<points label="r" points="9,9" outside="1"/></skeleton>',
        '<points label="chin" points="8,12"/>',
        '<points label="brow" points="1,2;3,4"/>',
        labels="<label><name>face</name><type>skeleton</type></label>"
        "<label><name>chin</name><type>points</type></label>",
    )
    labels = read(images, "cvat", path)
    assert labels.classes is None
    assert labels.keypoint_names == ("brow_1", "brow_2", "chin", "l", "r")
    assert labels.points["a"].tolist() == [[1, 2, 1], [3, 4, 1], [8, 12, 1], [3.5, 4, 1], [0, 0, 0]]


def test_cvat_labels_keep_their_order_and_color(images: Path) -> None:
    entries = (("low", "#00ff00"), ("high", "#ff0000"))
    labels = "".join(f"<label><name>{n}</name><color>{c}</color></label>" for n, c in entries)
    found = read(images, "cvat", cvat(images, POLYGON.format(0, ""), labels=labels)).classes
    assert found is not None
    assert [(c.name, c.color) for c in found.cards[1:]] == [("low", 0xFF00), ("high", 0xFF0000)]


@pytest.mark.parametrize(
    ("head", "shape", "message"),
    [
        (
            "",
            '<polyline label="brow" points="1,1;2,2"/>',
            r"\(sub/a\.png\) has a polyline \('brow'\)",
        ),
        ("", '<mask label="m" rle="5, 1" left="0" top="0" width="3" height="3"/>', "add up to 9"),
        ("", '<mask label="m" rle="9" left="9" top="0" width="9" height="1"/>', "past the image"),
        ("", '<mask label="m" rle="9" left="0" top="0" width="1e8" height="1e8"/>', "past the im"),
        ("", '<polygon label="p" points="1,2;nan,3;4,5"/>', "not finite"),
        ("", '<ellipse label="p" cx="1" cy="x" rx="1" ry="1"/>', "cy is 'x'"),
        ("", "<image>", "no XML file of CVAT"),
        ('<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>', "<tag/>", "no XML file of CVAT"),
        ("", "</image><track/><image>", "tracks of a video"),
    ],
)
def test_wrong_or_hostile_xml_is_one_line(
    images: Path, head: str, shape: str, message: str
) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        read(images, "cvat", cvat(images, shape, head=head))
    assert "\n" not in str(caught.value) and "annotations.xml" in str(caught.value)


def result(kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    sizes = {"original_width": 16, "original_height": 16}
    return {"type": kind, "from_name": "label", "value": value, **sizes, **more}


def tasks(images: Path, *results: dict[str, Any], **more: Any) -> Path:
    task = {
        "id": 3,
        "data": {"text": "x", "image": "/data/local-files/?d=sub%20dir/a.png"},
        "annotations": [{"id": 1, "result": list(results)}],
        **more,
    }
    write_json(images.parent / "export.json", [task])
    return images.parent / "export.json"


def test_label_studio_shapes_are_percent_and_turn_around_their_corner(images: Path) -> None:
    square = {"x": 18.75, "y": 12.5, "width": 43.75, "height": 25, "rectanglelabels": ["high"]}
    path = tasks(images, result("rectanglelabels", square))
    np.testing.assert_array_equal(mask_of(read(images, "labelstudio", path)), SQUARE)
    turned = {"x": 62.5, "y": 12.5, "width": 25, "height": 43.75, "rotation": 90}
    path = tasks(images, result("rectanglelabels", {**turned, "rectanglelabels": ["high"]}))
    np.testing.assert_array_equal(mask_of(read(images, "labelstudio", path)), SQUARE)
    ellipse = {"x": 50, "y": 50, "radiusX": 37.5, "radiusY": 12.5, "ellipselabels": ["e"]}
    point = {"x": 25, "y": 75, "width": 0.5, "keypointlabels": ["tip"]}
    labels = read(
        images,
        "labelstudio",
        tasks(images, result("ellipselabels", {**ellipse, "rotation": 90}),
              result("keypointlabels", point), {"type": "choices", "value": {"choices": ["x"]}}),
    )  # fmt: skip
    mask = mask_of(labels)
    assert mask[2:14, 7:9].all() and not mask[:, :5].any()
    assert labels.points["a"].tolist() == [[4, 12, 1]]


def test_label_studio_regions_may_have_their_name_in_another_result(images: Path) -> None:
    points = {"points": [[18.75, 12.5], [62.5, 12.5], [62.5, 37.5], [18.75, 37.5]]}
    path = tasks(
        images,
        result("polygon", points, id="x"),
        result("labels", {**points, "labels": ["high"]}, id="x"),
    )
    np.testing.assert_array_equal(mask_of(read(images, "labelstudio", path)), SQUARE)


def test_label_studio_needs_one_annotation_of_a_task(images: Path) -> None:
    done = {"id": 1, "result": []}
    for annotations, message in (
        ([done, done], "task 3 has 2 annotations; keep one, or mark one as ground truth"),
        ([{**done, "was_cancelled": True}], "no region and no keypoint"),
    ):
        with pytest.raises(LabelError, match=message):
            read(images, "labelstudio", tasks(images, annotations=annotations))


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([result("polygonlabels", {"points": 3, "polygonlabels": ["x"]})], "cannot be read"),
        ([result("polygonlabels", {"points": []})], "without a label"),
        ([result("brushlabels", {"rle": [255] * 9, "brushlabels": ["x"]})], "brush stroke of"),
        ([result("brushlabels", {"rle": [0, 0, 4, 0], "brushlabels": ["x"]})], "ends early"),
        ([result("videorectangle", {})], "type 'videorectangle'"),
        ([result("keypointlabels", {"x": 900, "y": 1, "keypointlabels": ["k"]})], r"at \(144, 0"),
        ([{"type": "polygonlabels"}], "not as Label Studio writes it"),
    ],
)
def test_wrong_label_studio_results_name_file_and_task(
    images: Path, results: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        read(images, "labelstudio", tasks(images, *results))
    assert "export.json, task 3" in str(caught.value) and "\n" not in str(caught.value)


def test_a_brush_stroke_of_another_picture_is_refused_before_it_is_unpacked(images: Path) -> None:
    huge = brush_from_mask(np.ones((32, 32), bool))
    path = tasks(images, result("brushlabels", {"rle": huge, "brushlabels": ["x"]}))
    with pytest.raises(LabelError, match="brush stroke of 4096 values of 8 bits; 16x16 pixels"):
        read(images, "labelstudio", path)


def test_roboflow_splits_are_read_as_one_set(images: Path) -> None:
    root = images.parent / "export"
    for split, name in (("train", "a"), ("valid", "b")):
        content: dict[str, Any] = coco({"category_id": 3, "segmentation": [OUTLINE]})
        content["images"][0]["file_name"] = f"{name}_png.rf.0123456789abcdef0123456789abcdef.jpg"
        content["images"][0]["extra"] = {"name": f"{name}.png"}
        write_json(root / split / "_annotations.coco.json", content)
    labels = read(images, "roboflow", root)
    assert labels.stems == ["a", "b"]
    np.testing.assert_array_equal(mask_of(labels, "b"), SQUARE)


def yolo(images: Path, text: str, data: str = "names: [high, low]") -> Path:
    root = images.parent / "yolo"
    (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(data)
    (root / "labels" / "train" / "a.txt").write_text(text)
    return root


def test_yolo_polygons_are_fractions_and_smaller_ones_cover(images: Path) -> None:
    ring = " ".join(str(v / 16) for v in OUTLINE)
    labels = read(images, "yolo", yolo(images, f"\ufeff0 {ring}\n1 0 0 1 0 1 1 0 1\n"))
    np.testing.assert_array_equal(mask_of(labels), np.where(SQUARE, 1, 2))


def test_yolo_poses_have_their_shape_and_names_in_data_yaml(images: Path) -> None:
    data = "names: {0: face}\nkpt_shape: [2, 3]\nkpt_names: {0: [tip, toe]}"
    labels = read(images, "yolo", yolo(images, "0 .5 .5 .5 .5 .25 .75 2 0 0 0", data))
    assert (labels.classes, labels.keypoint_names) == (None, ("tip", "toe"))
    assert labels.points["a"].tolist() == [[4, 12, 1], [0, 0, 0]]


def test_yolo_names_are_taken_as_they_are_written(images: Path) -> None:
    """YAML's `no` is False, its 1:30 is 90, and 1.10 is 1.1."""
    ring = " ".join(str(v / 16) for v in OUTLINE)
    names = ["no", "1:30", "1.10", "null", "0x10", "a b"]
    data = f"nc: 6\nnames: {{{', '.join(f'{i}: {name}' for i, name in enumerate(names))}}}"
    lines = "".join(f"{i} {ring}\n" for i in range(6))
    labels = read(images, "yolo", yolo(images, lines, data))
    assert labels.classes is not None
    assert [card.name for card in labels.classes.cards] == ["background", *names]


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ("", "a: &x {0: b}\nnames: *x", r"data\.yaml, line 2 has an alias \(\*x\); write"),
        ("", "names: [[[[[[[[[[a", r"data\.yaml, line 1 is nested more than 10 deep"),
        ("", "names: [a]\n---\nb", "several documents"),
        ("0 3 2 10 2 10 6", "names: [a]", r"a\.txt, line 1 has the coordinate 3; they are fract"),
        ("7 0 0 0 1 1 1", "names: [a]", r"line 1 has class 7; data\.yaml names 0 to 0"),
        ("0 0 0 0 1 1 1 1", "names: [a]", "has 8 numbers"),
        ("0 0 0 x", "names: [a]", "no line of numbers"),
        ("0 nan 0 0 1 1 1", "names: [a]", "finite"),
        ("", "nc: 3", "no list `names`"),
        ("", "names: [a", r"data\.yaml cannot be read"),
        ("0 .5 .5 .5 .5 .2 .7", "names: [a]\nkpt_shape: [2, 3]", "2 keypoints of 3 need 11"),
        ("", "names: [a]\nkpt_shape: 3", "kpt_shape must be"),
        ("0 .5 .5 .5 .5", "names: [a]", "no region .* 1 x box"),
    ],
)
def test_wrong_yolo_files_name_file_and_line(
    images: Path, text: str, data: str, message: str
) -> None:
    with pytest.raises(LabelError, match=message) as caught:
        read(images, "yolo", yolo(images, text, data))
    assert "\n" not in str(caught.value)


def png(images: Path, array: NDArray[Any], **save: Any) -> Path:
    root = images.parent / "png"
    root.mkdir(exist_ok=True)
    write_classes(root / "classes.toml", COLORS)
    Image.fromarray(array).save(root / "a.png", **save)
    return root


def painted(ids: NDArray[np.uint8], alpha: int | None = None) -> NDArray[np.uint8]:
    rgb = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[ids]
    if alpha is None:
        return rgb
    return np.dstack([rgb, np.where(ids > 0, 255, alpha).astype(np.uint8)])


def test_masks_of_ids_colors_alpha_sixteen_bits_and_palettes_mean_the_same(images: Path) -> None:
    for array in (
        SQUARE, SQUARE.astype(np.uint16), SQUARE.astype(bool), painted(SQUARE),
        painted(SQUARE, 255), painted(SQUARE, 0),
    ):  # fmt: skip
        np.testing.assert_array_equal(mask_of(read(images, "masks", png(images, array))), SQUARE)
    indexed = Image.fromarray(SQUARE, "L").convert("P")
    indexed.putpalette([9, 9, 9, 8, 8, 8])
    indexed.save(images.parent / "png" / "a.png")
    values = mask_of(read(images, "masks", images.parent / "png"))
    np.testing.assert_array_equal(values > 0, SQUARE > 0)


def test_a_mask_turned_by_exif_is_turned(images: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    root = png(images, np.rot90(SQUARE, 2).copy(), exif=exif)
    np.testing.assert_array_equal(mask_of(read(images, "masks", root)), SQUARE)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (painted(SQUARE, 7), r"a\.png has \d+ pixels that are partly transparent"),
        (painted(SQUARE) // 10 * 9, r"the color #e10000 in 28 pixels, .*nearest: high, #ff0000"),
        (SQUARE.astype(np.uint16) * 999, "class id 999; with 3 classes the largest is 2"),
        (SQUARE.astype(np.float32), "mode F"),
    ],
)
def test_wrong_masks_are_named(images: Path, array: NDArray[Any], message: str) -> None:
    if array.dtype == np.float32:
        root = png(images, SQUARE)
        (root / "a.png").unlink()
        Image.fromarray(array).save(root / "a.tiff")
    else:
        root = png(images, array)
    with pytest.raises(LabelError, match=message):
        read(images, "masks", root)


def test_a_label_of_the_photograph_before_it_was_turned_says_so(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 16)).save(tmp_path / "images" / "a.jpg", exif=exif)
    content: dict[str, Any] = coco({"category_id": 3, "segmentation": [OUTLINE]})
    content["images"][0] |= {"width": 16, "height": 20}
    write_json(tmp_path / "c.json", content)
    assert mask_of(read(tmp_path / "images", "coco", tmp_path / "c.json")).shape == (20, 16)
    content["images"][0] |= {"width": 20, "height": 16}
    write_json(tmp_path / "c.json", content)
    with pytest.raises(LabelError, match=r"20x16 pixels; its image is 16x20; .* before its EXIF"):
        read(tmp_path / "images", "coco", tmp_path / "c.json")


def test_names_never_lead_out_of_a_folder(images: Path) -> None:
    content: dict[str, Any] = coco({"category_id": 3, "segmentation": [OUTLINE]})
    content["images"][0]["file_name"] = "../../../a.png"
    write_json(images.parent / "c.json", content)
    read(images, "coco", images.parent / "c.json")
    assert [p.name for p in (images.parent / "out" / "masks").iterdir()] == ["a.png"]


def test_names_in_messages_neither_break_the_line_nor_steer_the_terminal(images: Path) -> None:
    content: dict[str, Any] = coco({"category_id": 3, "segmentation": [[1.0, 2.0]]})
    content["images"][0]["file_name"] = "x\n\x1b[31m/a.png"
    write_json(images.parent / "c.json", content)
    with pytest.raises(LabelError) as caught:
        read(images, "coco", images.parent / "c.json")
    assert str(caught.value).isprintable()


def test_lists_that_yaml_multiplies_are_refused(images: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n"
        for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    )
    for data in (bomb + "names: *j", bomb + "names: [a]\nkpt_shape: *j"):
        with pytest.raises(LabelError, match=r"data\.yaml"):
            read(images, "yolo", yolo(images, "", data))


def test_deep_or_huge_json_is_one_line(images: Path) -> None:
    for name, text in (("labelstudio", "[" * 100_000), ("coco", '{"images":' + "[" * 100_000)):
        (images.parent / "x.json").write_text(text)
        with pytest.raises(LabelError, match=r"x\.json is no"):
            read(
                images, "labelstudio" if name == "labelstudio" else "coco", images.parent / "x.json"
            )


def test_coco_regions_may_be_flat_lists_several_polygons_and_have_ids_of_text(
    images: Path,
) -> None:
    left, right = [3, 2, 6, 2, 6, 6, 3, 6], [6.0, 2, 10, 2, 10, 6, 6, 6]
    for segmentation in (OUTLINE, [left, right]):
        content: dict[str, Any] = coco({"category_id": "h", "segmentation": segmentation})
        content["categories"] = [{"id": "h", "name": "high", "keypoints": None}]
        content["images"][0] |= {"id": "i", "file_name": r"C:\x\a.png"}
        content["annotations"][0] |= {"image_id": "i", "score": 0.5, "iscrowd": False}
        write_json(images.parent / "c.json", content)
        np.testing.assert_array_equal(
            mask_of(read(images, "coco", images.parent / "c.json")), SQUARE
        )


def test_labelme_masks_keep_their_holes_and_oriented_rectangles_turn(images: Path) -> None:
    shape = ("high", "oriented_rectangle", [[3.0, 2.0], [10.0, 2.0], [10.0, 6.0], [3.0, 6.0]])
    content = labelme(shape)
    content |= {"imageData": "AAAA", "imagePath": r"..\images\a.png", "flags": {"good": True}}
    write_json(images.parent / "lm" / "a.json", content)
    np.testing.assert_array_equal(mask_of(read(images, "labelme", images.parent / "lm")), SQUARE)


def test_an_archive_or_a_missing_file_says_what_to_do(images: Path) -> None:
    import zipfile

    with zipfile.ZipFile(images.parent / "x.zip", "w") as archive:
        archive.writestr("annotations.xml", json.dumps({}))
    for name, message in (("x.zip", "is an archive; unzip it"), ("none", "cannot be read")):
        with pytest.raises(LabelError, match=message):
            read(images, "cvat", images.parent / name)
