"""Contact sheets of views: objects under each code of a bank, and candidates to annotate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from nets.generator import Generator
from training.label_crop import LabelCrop, images_from_ws
from training.views.bank import images_of_average

GAP, CAPTION = 4, 14  # pixels
PAPER, INK = (250, 250, 247), (30, 30, 30)
SHEET_WIDTH, TILE_WIDTHS = 2400, (64, 192)  # pixels; many columns have narrower tiles
ACROSS = 12  # candidates per row


def sheet_of_bank(
    generator: Generator,
    codes: NDArray[np.float32],
    objects: NDArray[np.float32],
    captions: Sequence[str],
    crop: LabelCrop,
) -> Image.Image:
    """Objects as rows of the sheet, codes as columns, with a caption above each column.

    codes [k, view_layers, w_dim], objects [n, num_ws, w_dim].
    """
    tile = _tile_size(len(codes), crop)
    sheet = _blank_sheet(len(codes), len(objects), tile)
    for i, object_ws in enumerate(tqdm(objects, desc="objects")):
        ws = np.repeat(object_ws[None], len(codes), axis=0)
        ws[:, : codes.shape[1]] = codes
        for j, image in enumerate(images_from_ws(generator, ws, crop)):
            _paste(sheet, image, tile, i, j, captions[j] if i == 0 else "")
    return sheet


def sheet_of_candidates(
    generator: Generator, codes: NDArray[np.float32], crop: LabelCrop
) -> Image.Image:
    """The average object under each code [n, view_layers, w_dim], with the code's number above."""
    tile = _tile_size(ACROSS, crop)
    sheet = _blank_sheet(min(ACROSS, len(codes)), -(-len(codes) // ACROSS), tile)
    for first in tqdm(range(0, len(codes), ACROSS), desc="views"):
        images = images_of_average(generator, codes[first : first + ACROSS], crop)
        for j, image in enumerate(images):
            _paste(sheet, image, tile, first // ACROSS, j, str(first + j))
    return sheet


def _tile_size(across: int, crop: LabelCrop) -> tuple[int, int]:
    """(height, width) of a tile, in pixels."""
    low, high = TILE_WIDTHS
    width = min(high, max(low, SHEET_WIDTH // across))
    return max(1, round(width * crop.height / crop.width)), width


def _blank_sheet(across: int, down: int, tile: tuple[int, int]) -> Image.Image:
    height, width = tile
    size = (GAP + across * (width + GAP), GAP + down * (height + CAPTION + GAP))
    return Image.new("RGB", size, PAPER)


def _paste(
    sheet: Image.Image,
    image: NDArray[np.uint8],
    tile: tuple[int, int],
    row: int,
    column: int,
    caption: str,
) -> None:
    height, width = tile
    x, y = GAP + column * (width + GAP), GAP + row * (height + CAPTION + GAP)
    ImageDraw.Draw(sheet).text((x + 2, y), caption, INK)
    enlarges = image.shape[1] < width
    resampling = Image.Resampling.BICUBIC if enlarges else Image.Resampling.BOX
    sheet.paste(Image.fromarray(image).resize((width, height), resampling), (x, y + CAPTION))
