"""Contact sheets of views: objects under each code of a bank, and candidates to annotate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from nets.generator import Generator
from training.label_crop import LabelCrop, images_from_ws
from training.sheet import Row, sheet_from_rows
from training.views.bank import images_of_average

SHEET_WIDTH, TILE_WIDTHS = 2400, (64, 192)  # pixels; many columns have narrower tiles
ACROSS = 12  # candidates per row
LEGEND = (
    "Rows: one object each. Columns: one view each, and where known its azimuth (positive towards "
    "the object's left) and elevation (positive from above) in degrees."
)


def sheet_of_bank(
    generator: Generator,
    codes: NDArray[np.float32],
    objects: NDArray[np.float32],
    captions: Sequence[str],
    crop: LabelCrop,
) -> Image.Image:
    """Objects as rows of the sheet, codes as columns, with a title above each column.

    codes [k, view_layers, w_dim], objects [n, num_ws, w_dim].
    """
    tile = _tile_size(len(codes), crop)
    rows = []
    for i, object_ws in enumerate(tqdm(objects, desc="objects")):
        ws = np.repeat(object_ws[None], len(codes), axis=0)
        ws[:, : codes.shape[1]] = codes
        images = images_from_ws(generator, ws, crop)
        rows.append(Row(f"object {i}", [_tile(image, tile) for image in images]))
    return sheet_from_rows(rows, captions, [(None, LEGEND)])


def sheet_of_candidates(
    generator: Generator, codes: NDArray[np.float32], crop: LabelCrop
) -> Image.Image:
    """The average object under each code [n, view_layers, w_dim], with the code's number above."""
    tile = _tile_size(ACROSS, crop)
    rows = []
    for first in tqdm(range(0, len(codes), ACROSS), desc="views"):
        images = images_of_average(generator, codes[first : first + ACROSS], crop)
        captions = [f"row {first + j}" for j in range(len(images))]
        rows.append(Row("", [_tile(image, tile) for image in images], captions))
    words = "The average object with the view code of each row of the file."
    return sheet_from_rows(rows, legend=[(None, words)])


def _tile_size(across: int, crop: LabelCrop) -> tuple[int, int]:
    """(height, width) of a tile, in pixels."""
    low, high = TILE_WIDTHS
    width = min(high, max(low, SHEET_WIDTH // across))
    return max(1, round(width * crop.height / crop.width)), width


def _tile(image: NDArray[np.uint8], tile: tuple[int, int]) -> Image.Image:
    height, width = tile
    enlarges = image.shape[1] < width
    resampling = Image.Resampling.BICUBIC if enlarges else Image.Resampling.BOX
    return Image.fromarray(image).resize((width, height), resampling)
