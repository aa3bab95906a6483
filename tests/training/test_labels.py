"""Labels mean the same whatever file they are in."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from checkpoints import classes_from_names, write_classes
from tests.training.label_files import OUTLINE, SQUARE, coco, labelme, write_json
from tests.training.sets import CLASSES, partly_labelled, tiny_images, tiny_labels
from training.images.image_set import ImageSet
from training.labels.annotations import ReadingRules
from training.labels.labelled_set import LabelPaths, labelled_set
from training.labels.polygons import counts_from_text, mask_from_counts
from training.labels.write import write_labels


def masks_of(images: ImageSet, **paths: Path) -> NDArray[np.uint8]:
    masks = labelled_set(images, LabelPaths(**paths)).masks
    assert masks is not None
    return masks


def test_written_labels_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    images = tiny_images(tmp_path, 4)
    labels = partly_labelled()
    write_labels(tmp_path, labels)
    back = labelled_set(images)
    assert back.stems == labels.stems and back.classes == labels.classes
    assert (back.keypoint_names, back.depth_unit) == (("peak",), "mm")
    np.testing.assert_array_equal(back.ws, images.ws)
    np.testing.assert_array_equal(back.masks, labels.masks)
    np.testing.assert_array_equal(back.depth, labels.depth)
    assert back.keypoints is not None and labels.keypoints is not None
    np.testing.assert_allclose(back.keypoints, labels.keypoints, atol=1e-5)


def test_images_without_labels_are_left_out_and_latents_stay_with_theirs(tmp_path: Path) -> None:
    images = tiny_images(tmp_path, 4)
    write_labels(tmp_path, tiny_labels())
    (tmp_path / "masks" / "a.png").unlink()
    (tmp_path / "masks" / "c.png").unlink()
    (tmp_path / "masks" / "of another image.png").write_bytes(b"")
    (tmp_path / "keypoints.json").unlink()
    (tmp_path / "depth" / "c.npy").unlink()
    labels = labelled_set(images)
    assert labels.stems == ("a", "b", "d")
    np.testing.assert_array_equal(labels.ws, images.ws[[0, 1, 3]])
    assert labels.masks is not None and (labels.masks[0] == labels.ignore_id).all()


@pytest.mark.parametrize(
    "shape",
    [
        ("high", "polygon", [[3, 2], [10, 2], [10, 6], [3, 6]]),
        ("high", "rectangle", [[10, 6], [3, 2]]),
    ],
)
def test_labelme_outlines_fill_the_pixels_between_their_corners(
    tmp_path: Path, shape: tuple[str, str, list[list[float]]]
) -> None:
    images = tiny_images(tmp_path)
    write_json(tmp_path / "labelme" / "a.json", labelme(shape))
    np.testing.assert_array_equal(masks_of(images)[0], SQUARE)


def test_labelme_circles_masks_and_ignored_regions_cover_in_order(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    write_classes(tmp_path / "classes.toml", CLASSES)
    with io.BytesIO() as stream:
        Image.fromarray(np.full((4, 7), 255, np.uint8)).save(stream, "PNG")
        pasted = base64.b64encode(stream.getvalue()).decode()
    content = labelme(
        ("high", "circle", [[8, 8], [8, 13]]),
        ("corner", "mask", [[3, 2], [9, 5]]),
        ("__ignore__", "rectangle", [[0, 0], [1, 1]]),
        ("_background_", "rectangle", [[7, 7], [9, 9]]),
    )
    content["shapes"][1]["mask"] = pasted
    write_json(tmp_path / "labelme" / "a.json", content)
    mask = masks_of(images)[0]
    row, column = np.ogrid[:16, :16]
    disc = np.hypot(column + 0.5 - 8, row + 0.5 - 8)
    assert mask[disc < 4.4][mask[disc < 4.4] == 0].size == 4  # the background's square
    np.testing.assert_array_equal(mask == 2, SQUARE == 1)
    assert (
        mask[0, 0] == 255
        and mask[15, 15] == 0
        and (mask[(disc > 5.2) & (SQUARE == 0)][1:] == 0).all()
    )


def test_coco_polygons_and_run_lengths_give_one_mask(tmp_path: Path) -> None:
    text = coco_mask.encode(np.asfortranarray(SQUARE))["counts"]
    assert isinstance(text, bytes)
    flat = SQUARE.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    plain = np.diff([0, *changes, 256]).tolist()
    for i, segmentation in enumerate(
        (
            [OUTLINE],
            {"size": [16, 16], "counts": text.decode()},
            {"size": [16, 16], "counts": plain},
        )
    ):
        images = tiny_images(tmp_path / str(i))
        write_json(
            tmp_path / str(i) / "masks.json", coco({"category_id": 3, "segmentation": segmentation})
        )
        np.testing.assert_array_equal(masks_of(images)[0], SQUARE)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 90), st.integers(1, 90)), elements=st.integers(0, 1))
)
def test_run_length_texts_read_as_pycocotools_writes_them(mask: NDArray[np.uint8]) -> None:
    text = coco_mask.encode(np.asfortranarray(mask))["counts"]
    assert isinstance(text, bytes)
    back = mask_from_counts(Path("x"), counts_from_text(text.decode()), mask.shape)
    np.testing.assert_array_equal(back, mask == 1)


def test_smaller_coco_parts_cover_larger_ones_and_crowds_are_ignored_if_asked(
    tmp_path: Path,
) -> None:
    images = tiny_images(tmp_path)
    write_classes(tmp_path / "classes.toml", CLASSES)
    inner = [4.0, 3.0, 6.0, 3.0, 6.0, 5.0, 4.0, 5.0]
    crowd = [0.0, 12.0, 16.0, 12.0, 16.0, 16.0, 0.0, 16.0]
    write_json(
        tmp_path / "masks.json",
        coco(
            {"category_id": 9, "segmentation": [inner]},
            {"category_id": 3, "segmentation": [OUTLINE]},
            {"category_id": 3, "segmentation": [crowd], "iscrowd": 1},
        ),
    )
    expected = SQUARE.copy()
    expected[3:5, 4:6] = 2
    expected[12:] = 1
    np.testing.assert_array_equal(masks_of(images)[0], expected)
    expected[12:] = 255
    ignoring = labelled_set(images, rules=ReadingRules(crowds="ignore")).masks
    assert ignoring is not None
    np.testing.assert_array_equal(ignoring[0], expected)


def test_labels_of_the_photographs_size_are_scaled_to_the_crop(tmp_path: Path) -> None:
    images = tiny_images(tmp_path, source=(64, 64))
    write_classes(tmp_path / "classes.toml", CLASSES)
    large = np.repeat(np.repeat(SQUARE, 4, axis=0), 4, axis=1)
    (tmp_path / "masks").mkdir()
    Image.fromarray(large).save(tmp_path / "masks" / "a.png")
    np.testing.assert_array_equal(masks_of(images)[0], SQUARE)
    outline = [[4 * x for x in OUTLINE]]
    write_json(tmp_path / "m.json", coco({"category_id": 3, "segmentation": outline}, size=64))
    np.testing.assert_array_equal(masks_of(images, masks=tmp_path / "m.json")[0], SQUARE)
    shape = ("high", "rectangle", [[12.0, 8.0], [40.0, 24.0]])
    write_json(tmp_path / "lm" / "a.json", labelme(shape, size=64))
    np.testing.assert_array_equal(masks_of(images, masks=tmp_path / "lm")[0], SQUARE)


def test_coco_keypoints_count_pixel_centers_at_whole_numbers(tmp_path: Path) -> None:
    images = tiny_images(tmp_path, source=(32, 32))
    content = coco({"category_id": 9, "keypoints": [3, 0, 2, 0, 0, 0]}, size=32)
    content["categories"] = [{"id": 9, "name": "o", "keypoints": ["p", "q"], "skeleton": [[1, 2]]}]
    write_json(tmp_path / "keypoints.json", content)
    labels = labelled_set(images)
    assert labels.keypoints is not None and labels.skeleton == ((0, 1),)
    assert labels.keypoints[0, 0].tolist() == [1.75, 0.25, 1.0] and labels.keypoints[0, 1, 2] == 0


def test_labelme_points_are_keypoints_and_no_part_of_the_masks(tmp_path: Path) -> None:
    """LabelMe counts from the pixel's corner, as labels here do."""
    images = tiny_images(tmp_path, source=(32, 32))
    square = ("high", "rectangle", [[6.0, 4.0], [20.0, 12.0]])
    tip, base = ("tip", "point", [[7.0, 1.0]]), ("base", "point", [[31.0, 16.0]])
    write_json(tmp_path / "labelme" / "a.json", labelme(square, tip, size=32))
    write_json(tmp_path / "labelme" / "b.json", labelme(tip, base, size=32))
    labels = labelled_set(images)
    assert labels.classes == classes_from_names(["background", "high"])
    assert labels.masks is not None and labels.keypoints is not None
    np.testing.assert_array_equal(labels.masks[0], SQUARE)
    assert (labels.masks[1] == labels.ignore_id).all()  # b has points alone: no mask
    assert labels.keypoint_names == ("base", "tip")
    assert labels.keypoints.tolist() == [[[0, 0, 0], [3.5, 0.5, 1]], [[15.5, 8, 1], [3.5, 0.5, 1]]]
    points = labelled_set(images, LabelPaths(keypoints=tmp_path / "labelme")).keypoints
    np.testing.assert_array_equal(points, labels.keypoints)


def test_points_without_any_region_label_keypoints_alone(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    write_json(tmp_path / "labelme" / "a.json", labelme(("tip", "point", [[7.0, 1.0]])))
    labels = labelled_set(images)
    assert (labels.masks, labels.classes, labels.keypoint_names) == (None, None, ("tip",))


def test_sixteen_bit_depth_is_scaled_and_zero_is_unknown(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    values = np.full((16, 16), 1500, np.uint16)
    values[0, 0] = 0
    (tmp_path / "depth").mkdir()
    Image.fromarray(values).save(tmp_path / "depth" / "b.png")
    (tmp_path / "depth" / "depth.toml").write_text('unit = "m"\npng_scale = 0.001\n')
    labels = labelled_set(images)
    assert labels.depth is not None and (labels.stems, labels.depth_unit) == (("b",), "m")
    assert np.isnan(labels.depth[0, 0, 0]) and labels.depth[0, 0, 1] == np.float32(1.5)


def test_names_of_outlines_become_the_classes_where_there_is_no_list(tmp_path: Path) -> None:
    images = tiny_images(tmp_path)
    rectangle = [[3.0, 2.0], [10.0, 6.0]]
    shapes = [("tail", "rectangle", rectangle), ("ear", "rectangle", rectangle)]
    write_json(tmp_path / "labelme" / "a.json", labelme(*shapes))
    labels = labelled_set(images)
    assert labels.classes == classes_from_names(["background", "ear", "tail"])
