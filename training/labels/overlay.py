"""Contact sheets of labels over their images, to look at: check_1.png, check_2.png ..."""

from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from labelmint.panels import (
    panel_from_image,
    panel_from_keypoints,
    panel_from_mask,
    size_from_images,
)
from training.images.image_set import read_rgb
from training.labels.label_folder import LabelFolder
from training.sheet import Color, Row, sheet_from_rows

ACROSS, DOWN = 6, 8  # pictures on a sheet
UNLABELLED = (128, 128, 128)


def write_overlays(folder: Path, labels: LabelFolder, title: str) -> list[Path]:
    """Draws the labels of every image, 48 on a sheet, and returns the paths of the sheets.

    All images must have one size, as in an image set. Raises LabelError, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stems, paths = labels.stems, list[Path]()
    for start in tqdm(range(0, len(stems), ACROSS * DOWN), "sheets", disable=None):
        shown = stems[start : start + ACROSS * DOWN]
        rows = []
        for first in range(0, len(shown), ACROSS):
            row = shown[first : first + ACROSS]
            pictures = [_overlay(labels, stem) for stem in row]
            rows.append(Row("", pictures, [_caption(labels, stem) for stem in row]))
        paths.append(folder / f"check_{len(paths) + 1}.png")
        about = f"{title}, images {start + 1} to {start + len(shown)} of {len(stems)}"
        sheet_from_rows(rows, legend=[(None, about), *_legend(labels)]).save(paths[-1])
    return paths


def _overlay(labels: LabelFolder, stem: str) -> Image.Image:
    pixels = read_rgb(labels.pictures.folder / labels.pictures.files[stem])
    size = size_from_images(pixels[None])
    picture = panel_from_image(pixels, size)
    mask, points = labels.mask(stem), labels.points.get(stem)
    if mask is not None:
        picture = panel_from_mask(mask, pixels, _palette(labels), size)
    if points is not None:
        grid = pixels.shape[:2]
        picture = panel_from_keypoints(points, labels.skeleton, np.array(picture), grid, size)
    return picture


def _caption(labels: LabelFolder, stem: str) -> str:
    parts = []
    mask, points = labels.mask(stem), labels.points.get(stem)
    if mask is not None:
        parts.append(f"{len(np.setdiff1d(mask, [labels.ignore_id]))} classes")
    if points is not None:
        parts.append(f"{int((points[:, 2] > 0).sum())} of {len(points)} keypoints")
    return f"{stem}: {', '.join(parts)}"


def _palette(labels: LabelFolder) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    palette = np.full((256, 3), UNLABELLED, np.uint8)
    for number, card in enumerate(labels.classes.cards if labels.classes else ()):
        palette[number] = _rgb(card.color)
    return palette


def _legend(labels: LabelFolder) -> list[tuple[Color | None, str]]:
    if labels.classes is None:
        return []
    classes = [(_rgb(card.color), card.name) for card in labels.classes.cards]
    return [*classes, (UNLABELLED, "ignored")]


def _rgb(color: int) -> Color:
    return color >> 16, color >> 8 & 255, color & 255
