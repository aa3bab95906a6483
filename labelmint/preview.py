"""Contact sheet of a batch: images and their labels.

Enter: a batch and its model. Leaves: a Pillow image with one column per sample and one row per
output, and below them the names of all classes and keypoints. Needs the extra `cli`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from labelmint import panels
from labelmint.batch import Batch
from labelmint.codec import Array
from labelmint.model import Model

_COLUMNS = 8  # per band; further samples go into bands below
_GAP, _MARGIN, _TITLES, _HEAD, _CAPTION = 6, 20, 128, 52, 24  # pixels
_SCALE = (10, 96)  # (height, width) in pixels of a row's color scale
_MAX_CHARACTERS = 500  # of a name, before it is measured
_MAX_CLASSES = 256  # in the legend: masks have ids of one byte
_MAX_VALUES = 4 << 20  # that a color scale is made from
_MIN_WIDTH = 560  # room for the headline
_PAPER, _INK, _FAINT = (250, 250, 247), (32, 33, 36), (112, 114, 120)


@dataclass(frozen=True)
class _Row:
    title: str
    note: str  # under the title
    panel: Callable[[int], Image.Image]  # of sample n of the batch
    caption: Callable[[int], str] | None = None  # under the panel
    scale: Image.Image | None = None  # colors from the lowest value to the highest, of _SCALE


def sheet_from_batch(batch: Batch, model: Model, columns: int = _COLUMNS) -> Image.Image:
    """Draws the images, masks, keypoints, depth and uncertainty of a batch, whichever it has.

    All samples share one color scale for depth and one for uncertainty. Samples that exceed
    `columns` go into bands below.

    Raises:
        ValueError: the batch is empty or has no images.
    """
    if batch.images is None or not len(batch):
        raise ValueError(
            f"the batch has {len(batch)} samples but no images; add image to the outputs"
            if batch.images is None
            else "the batch has 0 samples; a sheet needs at least one"
        )
    size = panels.size_from_images(batch.images)
    rows = _rows(batch, batch.images, model, size)
    columns = min(len(batch), columns)
    heights = [size[0] + _GAP + (_CAPTION if row.caption else 0) for row in rows]
    bands = -(-len(batch) // columns)
    band_height = _CAPTION + sum(heights) + 2 * _GAP
    width = max(_MIN_WIDTH, 2 * _MARGIN + _TITLES + columns * (size[1] + _GAP) - _GAP)
    legend = _legend(batch, model, width - 2 * _MARGIN)
    sheet = Image.new("RGB", (width, _HEAD + bands * band_height + legend.height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    headline = _headline(batch, model)
    room = width - 2 * _MARGIN - int(_font(13).getlength(headline)) - _MARGIN
    name = _fitting(_line(model.name) or "labelmint", _font(20), room)
    draw.text((_MARGIN, 14), name, _INK, _font(20))
    draw.text((width - _MARGIN, 20), headline, _FAINT, _font(13), "ra")
    for band in range(bands):
        top = _HEAD + band * band_height
        lefts = {
            sample: _MARGIN + _TITLES + (sample - band * columns) * (size[1] + _GAP)
            for sample in range(band * columns, min((band + 1) * columns, len(batch)))
        }
        draw.text((_MARGIN, top), "raw index", _FAINT, _font(13))
        for sample, left in lefts.items():
            draw.text((left + 1, top), f"#{batch.indices[sample]}", _INK, _font(13))
        top += _CAPTION
        for row, height in zip(rows, heights, strict=True):
            draw.text((_MARGIN, top + 2), row.title, _INK, _font(15))
            draw.text((_MARGIN, top + 24), row.note, _FAINT, _font(12))
            if row.scale:
                sheet.paste(row.scale, (_MARGIN, top + 46))
            for sample, left in lefts.items():
                sheet.paste(row.panel(sample), (left, top))
                if row.caption:
                    place = (left + 1, top + size[0] + 3)
                    draw.text(place, row.caption(sample), _INK, _font(13))
            top += height
    sheet.paste(legend, (_MARGIN, sheet.height - legend.height))
    return sheet


def _rows(batch: Batch, images: Array, model: Model, size: tuple[int, int]) -> list[_Row]:
    def image(n: int) -> Image.Image:
        return panels.panel_from_image(images[n], size)

    rows = [_Row("image", "{1} x {0} px".format(*images.shape[1:3]), image)]
    if batch.masks is not None:
        rows.append(_mask_row(batch.masks, images, model, size))
    if batch.keypoints is not None:
        rows.append(_keypoint_row(batch.keypoints, images, model, size))
    if batch.depth is not None:
        rows.append(_depth_row(batch.depth, size))
    if batch.uncertainty_map is not None:
        rows.append(_uncertainty_row(batch.uncertainty_map, model.score_unit, size))
    if batch.uncertainty is not None:
        rows[-1] = _with_scores(rows[-1], batch.uncertainty)
    return rows


def _mask_row(masks: Array, images: Array, model: Model, size: tuple[int, int]) -> _Row:
    def panel(n: int) -> Image.Image:
        return panels.panel_from_mask(masks[n], images[n], model.palette(), size)

    return _Row("mask", f"{len(model.classes)} classes", panel)


def _keypoint_row(keypoints: Array, images: Array, model: Model, size: tuple[int, int]) -> _Row:
    grid = model.label_size if all(model.label_size) else images.shape[1:3]

    def panel(n: int) -> Image.Image:
        return panels.panel_from_keypoints(
            keypoints[n], model.skeleton, images[n], (grid[0], grid[1]), size
        )

    return _Row("keypoints", f"{keypoints.shape[1]} points", panel)


def _depth_row(depth: Array, size: tuple[int, int]) -> _Row:
    low, high = _low_high(depth, 0.5, 99.5)

    def panel(n: int) -> Image.Image:
        return panels.panel_from_depth(depth[n], low, high, size)

    scale = panels.panel_from_depth(np.linspace([low], [high], 64, axis=1), low, high, _SCALE)
    return _Row("depth", f"{low:.3g} to {high:.3g}", panel, scale=scale)


def _uncertainty_row(values: Array, unit: str, size: tuple[int, int]) -> _Row:
    high = _low_high(values, 0, 99.5)[1]

    def panel(n: int) -> Image.Image:
        return panels.panel_from_values(values[n], 0, high, panels.HEAT, size)

    scale = panels.panel_from_values(
        np.linspace([0], [high], 64, axis=1), 0, high, panels.HEAT, _SCALE
    )
    return _Row("uncertainty", f"0 to {high:.3g} {unit}".rstrip(), panel, scale=scale)


def _with_scores(row: _Row, scores: Array) -> _Row:
    return replace(row, caption=lambda n: f"score {scores[n]:.4f}")


def _low_high(values: Array, low: float, high: float) -> tuple[float, float]:
    """Two percentiles of the finite values, as ends of a color scale without the outliers.

    Of very many values, only every k-th counts.
    """
    values = values.reshape(-1)[:: 1 + values.size // _MAX_VALUES]
    finite = values[np.isfinite(values)].astype(np.float32)
    if not len(finite):
        return 0.0, 1.0
    ends = np.percentile(finite, (low, high))
    return float(ends[0]), float(ends[1])


def _headline(batch: Batch, model: Model) -> str:
    examined = len(batch) + batch.discarded
    kept = f"{len(batch)} kept of {examined}" if batch.discarded else f"{len(batch)} samples"
    edits = ", ".join(
        f"{name[:40]} {strength:+g}" for name, strength in (batch.edits or {}).items()
    )
    parts = (kept, _line(edits), _line(model.family), _line(model.bundle_id)[:19])
    return "   ".join(part for part in parts if part)


def _legend(batch: Batch, model: Model, width: int) -> Image.Image:
    """Colors and names of all classes, then of all keypoints, in lines of at most `width` pixels.

    Keypoints are left out where several share a color.
    """
    classes = [] if batch.masks is None else model.classes[:_MAX_CLASSES]
    names = [] if batch.keypoints is None else model.keypoints[: batch.keypoints.shape[1]]
    lines = [
        [(label.name, label.color) for label in classes],
        list(zip(names, panels.JOINTS, strict=False)) if len(names) <= len(panels.JOINTS) else [],
    ]
    font, line_height = _font(13), 24
    places: list[tuple[int, int, str, panels.Color, bool]] = []
    top = -line_height
    for entries, is_keypoint in zip(lines, (False, True), strict=True):
        left = width
        for name, color in entries:
            text = _fitting(_line(name), font, width - 28)
            size = 28 + int(font.getlength(text)) + 16
            if left + size - 16 > width:
                left, top = 0, top + line_height
            places.append((left, top, text, color, is_keypoint))
            left += size
    height = top + line_height + _MARGIN // 2
    legend = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(legend)
    for left, top, text, color, is_keypoint in places:
        if is_keypoint:
            draw.ellipse((left + 4, top + 4, left + 14, top + 14), color, _INK)
        else:
            draw.rectangle((left, top + 2, left + 18, top + 16), color, _FAINT)
        draw.text((left + 25, top), text, _INK, font)
    return legend


def _fitting(text: str, font: Any, width: int) -> str:
    """The text, or as much of its beginning as fits, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    lengths = range(len(text))
    fits = bisect_right(lengths, width, key=lambda n: font.getlength(f"{text[:n]}..."))
    return f"{text[: max(0, fits - 1)]}..."


def _line(text: str) -> str:
    """A name as one line. Names come from a server, and Pillow cannot measure several lines, nor
    millions of letters."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:_MAX_CHARACTERS])


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
