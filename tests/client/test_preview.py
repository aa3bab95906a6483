"""Preview: the sheet shows what the batch has, at a size that can be read."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from labelmint.batch import Batch
from labelmint.model import Model, model_from_proto
from labelmint.panels import (
    HEAT,
    JOINTS,
    RANGE,
    panel_from_depth,
    panel_from_image,
    panel_from_keypoints,
    panel_from_mask,
    panel_from_values,
)
from labelmint.preview import sheet_from_batch
from tests.client.scripted_service import MODEL, sample


def batch(count: int, **changes: Any) -> Batch:
    samples = [sample(1, index) for index in range(count)]
    arrays = {
        name: np.concatenate([each[name] for each in samples]) if count else None
        for name in sample(1, 0)
    }
    made = Batch(
        images=arrays["image"],
        masks=arrays["mask"],
        keypoints=arrays["keypoints"],
        depth=arrays["depth"],
        uncertainty=arrays["uncertainty"],
        uncertainty_map=arrays["uncertainty_map"],
        w=None,
        indices=np.arange(count, dtype=np.uint64),
        next_index=count,
        discarded=0,
        bundle_id="sha256:scripted",
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def model() -> Model:
    return model_from_proto(MODEL)


def colours(sheet: Image.Image) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)}


def test_every_output_adds_a_row_and_every_sample_a_column(model: Model) -> None:
    whole = sheet_from_batch(batch(3), model)
    heights = [whole.height]
    shown = batch(3)
    for field in ("uncertainty_map", "depth", "keypoints", "masks"):
        changes: dict[str, Any] = {field: None}
        shown = dataclasses.replace(shown, **changes)
        heights.append(sheet_from_batch(shown, model).height)
    assert heights == sorted(set(heights), reverse=True)
    assert sheet_from_batch(batch(4), model).width > whole.width
    assert sheet_from_batch(batch(9), model).height > 1.8 * sheet_from_batch(batch(8), model).height


def test_images_are_shown_unchanged_and_classes_have_a_legend(model: Model) -> None:
    sheet = sheet_from_batch(batch(2), model)
    shown = colours(sheet)
    for index in range(2):
        assert tuple(sample(1, index)["image"][0, 0, 0].tolist()) in shown
    for label in model.classes:
        assert label.color in shown


def test_the_legend_names_classes_that_no_mask_has_and_all_keypoints(model: Model) -> None:
    empty = batch(2, masks=np.zeros((2, 6, 8), np.uint8))
    shown = colours(sheet_from_batch(empty, model))
    assert {label.color for label in model.classes} <= shown
    assert set(JOINTS[: len(model.keypoints)]) <= shown


@pytest.mark.parametrize("columns", [1, 2, 8])
def test_names_that_are_too_long_do_not_widen_a_sheet(model: Model, columns: int) -> None:
    long = dataclasses.replace(model.classes[0], name="w" * 500)
    named = dataclasses.replace(model, name="m" * 500, classes=(long, *model.classes[1:]))
    short, drawn = (sheet_from_batch(batch(8), each, columns) for each in (model, named))
    assert drawn.width == short.width


ODD: dict[str, dict[str, Any]] = {
    "depth all nan": {"depth": np.full((2, 6, 8), np.nan, np.float16)},
    "depth all inf": {"depth": np.full((2, 6, 8), np.inf, np.float16)},
    "nothing uncertain": {"uncertainty_map": np.zeros((2, 6, 8), np.float16)},
    "keypoints nan": {"keypoints": np.full((2, 3, 3), np.nan, np.float32)},
    "keypoints far away": {"keypoints": np.full((2, 3, 3), 1e30, np.float32)},
    "class without a name": {"masks": np.full((2, 6, 8), 255, np.uint8)},
    "finer masks": {"masks": np.zeros((2, 12, 16), np.uint8)},
    "large images": {"images": np.zeros((2, 512, 384, 3), np.uint8)},
}


@pytest.mark.parametrize("changes", ODD.values(), ids=ODD)
def test_odd_values_are_drawn_not_refused(model: Model, changes: dict[str, Any]) -> None:
    sheet_from_batch(batch(2, **changes), model)


@pytest.mark.parametrize("size", [(200_000, 1), (1, 2_000_000), (4000, 4000)])
def test_a_sheet_of_huge_arrays_has_bounded_size_memory_and_work(
    size: tuple[int, int], model: Model
) -> None:
    """A server may send 200,000 x 1 pixels, which would be enlarged to 160 times the width, or
    labels far larger than the image, of which colors take 40 times the memory."""
    whole = {
        "images": np.zeros((2, *size, 3), np.uint8),
        "masks": np.zeros((2, *size), np.uint8),
        "depth": np.ones((2, *size), np.float16),
        "uncertainty_map": np.zeros((2, *size), np.float16),
        "keypoints": np.zeros((2, 300_000, 3), np.float32),
    }
    given = batch(2, **whole)
    tracemalloc.start()
    try:
        sheet = sheet_from_batch(given, model)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sheet.width * sheet.height < 10_000_000
    assert peak_bytes < 120 << 20


def test_names_of_any_length_and_number_end_within_the_sheet(model: Model) -> None:
    long = "x" * 2_000_000  # Pillow refuses to measure it, and would measure each of its parts
    classes = [dataclasses.replace(model.classes[0], name=long)] * 5000
    named = dataclasses.replace(
        model, name=long, family=long, bundle_id=long, classes=tuple(classes),
        keypoints=(long,) * len(model.keypoints),
    )  # fmt: skip
    plain = sheet_from_batch(batch(2), model)
    sheet = sheet_from_batch(batch(2), named)
    assert sheet.width == plain.width and sheet.height < plain.height + 300 * 24


def test_arrays_of_ordinary_size_are_drawn_whole() -> None:
    values = np.random.default_rng(0).random((1024, 1024)).astype(np.float32)
    pixels = (values * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    reference = Image.fromarray(pixels).resize((192, 192), Image.Resampling.BOX)
    assert np.array_equal(np.asarray(panel_from_image(pixels, (192, 192))), np.asarray(reference))


def test_batches_without_images_are_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="needs at least one"):
        sheet_from_batch(batch(0, images=np.zeros((0, 6, 8, 3), np.uint8)), model)
    with pytest.raises(ValueError, match="image"):
        sheet_from_batch(batch(2, images=None), model)


def test_panels_scale_by_whole_pixels_up_and_by_averages_down() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = 200
    up = np.asarray(panel_from_image(image, (8, 8)))
    assert (up[:4, :4] == 200).all()
    assert up.sum() == 16 * 3 * 200
    assert np.asarray(panel_from_image(image, (1, 1))).tolist() == [[[50, 50, 50]]]


def test_masks_take_the_palette_over_the_image() -> None:
    mask = np.array([[0, 1]], np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    palette[1] = (250, 100, 0)
    image: npt.NDArray[np.uint8] = np.full((1, 2, 3), 100, np.uint8)
    panel = np.asarray(panel_from_mask(mask, image, palette, (10, 20)))
    assert np.abs(panel[5, 2] - np.array([40.0, 40, 40])).max() <= 1
    assert np.abs(panel[5, 17] - np.array([190.0, 100, 40])).max() <= 1


def test_keypoints_sit_at_pixel_centres_and_faint_ones_are_left_out() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    points = np.array([[0.5, 0.5, 1], [3.5, 3.5, 0.01], [3.5, 0.5, 1]], np.float32)
    panel = np.asarray(panel_from_keypoints(points, ((0, 1),), image, (4, 4), (80, 80)))
    assert panel[10, 10].max() > 200
    assert panel[10, 70].max() > 200
    assert panel[70, 70].max() < 50
    assert panel[40, 40].max() < 50  # no bone to a faint end


def test_values_run_through_the_scale_and_not_finite_ones_are_grey() -> None:
    values = np.array([[0, 2, np.nan]], np.float32)
    panel = np.asarray(panel_from_values(values, 0, 2, HEAT, (1, 3)))
    assert panel.tolist() == [[list(HEAT[0]), list(HEAT[-1]), [128, 128, 128]]]


def test_depth_takes_colours_by_its_inverse() -> None:
    depth = np.array([[1, 2, 4, 0.5, -1, 9, np.nan, np.inf]], np.float16)
    row = np.asarray(panel_from_depth(depth, 1, 4, (1, 8)))[0].tolist()
    even = np.array([[0, 2 / 3, 1]])
    scale = np.asarray(panel_from_values(even, 0, 1, RANGE, (1, 3)))[0].tolist()
    assert row[:3] == scale
    assert row[3:6] == [scale[0], scale[0], scale[2]]  # beyond the ends
    assert row[6:] == [[128] * 3] * 2


def test_depth_that_may_be_negative_has_even_colours_by_itself() -> None:
    depth = np.array([[-2, 0, 1, np.nan]], np.float16)
    ours = panel_from_depth(depth, -2, 1, (1, 4))
    assert ours == panel_from_values(depth, -2, 1, RANGE, (1, 4))


def test_a_sheet_saves_as_a_picture(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    sheet_from_batch(batch(2), model).save(path)
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
