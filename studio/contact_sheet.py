"""A contact sheet: the first samples of the wall, each above its labels, as one picture."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from checkpoints import ClassCard

COLUMNS, MOST = 8, 24  # samples in a row, and in all
GAP = 4  # pixels
OPACITY = 0.6  # of the labels over the image
GROUND, UNKNOWN = 0x14161B, 0x808080


def contact_sheet(
    pictures: list[NDArray[np.uint8]],  # [H, W, 3] each
    masks: list[NDArray[np.uint8]],  # [H, W] each
    classes: list[ClassCard],
) -> bytes:
    """PNG of images above labels, in rows; at least one of each is given."""
    table = np.full((256, 3), _rgb(UNKNOWN), np.float32)
    for class_id, card in enumerate(classes):
        table[class_id] = _rgb(card.color)
    pairs = [
        np.concatenate([p, (p * (1 - OPACITY) + table[m] * OPACITY).astype(np.uint8)])
        for p, m in zip(pictures[:MOST], masks[:MOST], strict=True)
    ]
    height, width = pairs[0].shape[:2]
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    sheet = np.empty((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), np.uint8)
    sheet[:] = _rgb(GROUND)
    for at, pair in enumerate(pairs):
        top, left = GAP + at // columns * (height + GAP), GAP + at % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = pair
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, "png")
    return stream.getvalue()


def _rgb(color: int) -> tuple[int, int, int]:
    return color >> 16, color >> 8 & 255, color & 255
