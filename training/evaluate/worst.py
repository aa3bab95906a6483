"""The images that an interpreter labels worst -> a sheet: image, label, prediction, difference.

Rows are sorted by the first kind of label that both the held-out set and the interpreter have:
parts by IoU, keypoints by mean distance, depth by RMSE.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from labelmint.panels import (
    HEAT,
    panel_from_depth,
    panel_from_image,
    panel_from_keypoints,
    panel_from_mask,
    panel_from_values,
    size_from_images,
)
from training.evaluate.metrics import image_errors, image_ious
from training.interpreter.predict import Prediction
from training.labels.labelled_set import LabelledSet
from training.sheet import Color, Row, sheet_from_rows

ROWS = 8
COLUMNS = ("image", "label", "prediction", "difference")
WRONG, UNLABELLED = (230, 40, 40), (128, 128, 128)
DIM = 0.35  # brightness of the image under its difference

Legend = list[tuple[Color | None, str]]


@dataclass(frozen=True)
class Labelled:
    """One image with its true labels and its prediction."""

    pixels: NDArray[np.uint8]  # [H, W, 3]
    truth: LabelledSet  # of this image alone
    predicted: Prediction


def sheet_of_worst(
    images: NDArray[np.uint8], predicted: Sequence[Prediction], truth: LabelledSet
) -> Image.Image | None:
    """Up to eight rows, the worst first; images uint8 [n, H, W, 3] in the order of `truth`.

    None without a kind of label that both have.
    """
    kind = _kind(predicted, truth)
    if kind is None:
        return None
    errors, words = _errors(kind, predicted, truth)
    order = [int(i) for i in np.argsort(-errors, kind="stable") if np.isfinite(errors[i])][:ROWS]
    size = size_from_images(images)
    largest = _largest_depth_error(predicted, truth) if kind == "depth" else 0.0
    rows = []
    for i in order:
        one = Labelled(images[i], truth.rows(np.array([i])), predicted[i])
        if kind == "segmentation":
            panels = _mask_panels(one, size)
        elif kind == "keypoints":
            panels = _keypoint_panels(one, size)
        else:
            panels = _depth_panels(one, size, largest)
        picture = panel_from_image(images[i], size)
        rows.append(Row(f"{truth.stems[i]}\n{words[i]}", [picture, *panels]))
    return sheet_from_rows(rows, COLUMNS, _legend(kind, truth, largest)) if rows else None


def _kind(predicted: Sequence[Prediction], truth: LabelledSet) -> str | None:
    for kind, labels, found in (
        ("segmentation", truth.masks, predicted[0].mask),
        ("keypoints", truth.keypoints, predicted[0].keypoints),
        ("depth", truth.depth, predicted[0].depth),
    ):
        if labels is not None and found is not None:
            return kind
    return None


def _errors(
    kind: str, predicted: Sequence[Prediction], truth: LabelledSet
) -> tuple[NDArray[np.float64], list[str]]:
    """Error of each image, [n], and its measure in words."""
    if kind == "segmentation":
        ious = image_ious(predicted, truth)
        return 1 - ious, [f"mIoU {iou:.3f}" for iou in ious]
    errors = image_errors(predicted, truth, kind)
    if kind == "keypoints":
        return errors, [f"mean distance {error:.2f} px" for error in errors]
    return errors, [f"RMSE {error:.4g} {truth.depth_unit}".strip() for error in errors]


def _mask_panels(one: Labelled, size: tuple[int, int]) -> list[Image.Image]:
    assert one.truth.masks is not None and one.truth.classes is not None
    assert one.predicted.mask is not None
    palette = np.full((256, 3), UNLABELLED, np.uint8)
    for number, card in enumerate(one.truth.classes.cards):
        palette[number] = _rgb(card.color)
    true = one.truth.masks[0]
    difference = (one.pixels * DIM).astype(np.uint8)
    difference[true != one.predicted.mask] = WRONG
    difference[true == one.truth.ignore_id] = UNLABELLED
    return [
        panel_from_mask(true, one.pixels, palette, size),
        panel_from_mask(one.predicted.mask, one.pixels, palette, size),
        panel_from_image(difference, size),
    ]


def _keypoint_panels(one: Labelled, size: tuple[int, int]) -> list[Image.Image]:
    assert one.truth.keypoints is not None and one.predicted.keypoints is not None
    true, found = one.truth.keypoints[0], one.predicted.keypoints
    grid, skeleton = one.pixels.shape[:2], one.truth.skeleton
    difference = panel_from_image((one.pixels * DIM).astype(np.uint8), size)
    draw = ImageDraw.Draw(difference)
    scale = np.array([size[1] / grid[1], size[0] / grid[0]])
    for start, end, visible in zip(
        true[:, :2] * scale, found[:, :2] * scale, true[:, 2], strict=True
    ):
        if visible > 0:
            x, y = start.tolist()
            draw.line([(x, y), tuple(end.tolist())], WRONG, 2)
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), (255, 255, 255))
    return [
        panel_from_keypoints(true, skeleton, one.pixels, grid, size),
        panel_from_keypoints(found, skeleton, one.pixels, grid, size),
        difference,
    ]


def _depth_panels(one: Labelled, size: tuple[int, int], largest: float) -> list[Image.Image]:
    assert one.truth.depth is not None and one.predicted.depth is not None
    true, found = one.truth.depth[0], one.predicted.depth
    low, high = float(np.nanmin(true)), float(np.nanmax(true))
    return [
        panel_from_depth(true, low, high, size),
        panel_from_depth(found, low, high, size),
        panel_from_values(np.abs(found - true), 0, largest, HEAT, size),
    ]


def _largest_depth_error(predicted: Sequence[Prediction], truth: LabelledSet) -> float:
    assert truth.depth is not None
    differences = [np.abs(p.depth - d) for p, d in zip(predicted, truth.depth, strict=True)]
    return float(np.nanmax(np.stack(differences)))


def _legend(kind: str, truth: LabelledSet, largest: float) -> Legend:
    if kind == "segmentation":
        assert truth.classes is not None
        classes: Legend = [(_rgb(card.color), card.name) for card in truth.classes.cards]
        ends: Legend = [(WRONG, "difference: wrong label"), (UNLABELLED, "not labeled")]
        return [*classes, *ends]
    if kind == "keypoints":
        return [(WRONG, "difference: from the label (white) to the prediction")]
    unit = f" {truth.depth_unit}" if truth.depth_unit else ""
    return [
        (None, f"Difference: dark is 0, light is {largest:.4g}{unit}."),
        (UNLABELLED, "not labeled"),
    ]


def _rgb(color: int) -> Color:
    return color >> 16, color >> 8 & 255, color & 255
