"""Contact sheets of views: a bank by objects, and candidates to annotate."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from nets.generator import Generator
from training.label_crop import LabelCrop, images_from_ws
from training.views.bank import images_of_average

GAP = 4  # pixels
CAPTION = 14
PAPER, INK = (250, 250, 247), (30, 30, 30)
SHEET_WIDTH, TILE_WIDTHS = 2400, (64, 192)  # tiles shrink where there are many
ACROSS = 12  # candidates in a row


def sheet_of_bank(
    generator: Generator,
    codes: NDArray[np.float32],
    objects: NDArray[np.float32],
    captions: Sequence[str],
    crop: LabelCrop,
) -> Image.Image:
    """One row of the sheet for each of objects [n, num_ws, w_dim], one column for each of codes
    [k, view_layers, w_dim], under its caption."""
    tile = _tile(len(codes), crop)
    sheet = _paper(len(codes), len(objects), tile)
    for i, rows in enumerate(tqdm(objects, desc="objects")):
        ws = np.repeat(rows[None], len(codes), axis=0)
        ws[:, : codes.shape[1]] = codes
        for j, image in enumerate(images_from_ws(generator, ws, crop)):
            _paste(sheet, image, tile, i, j, captions[j] if i == 0 else "")
    return sheet


def sheet_of_candidates(
    generator: Generator, codes: NDArray[np.float32], crop: LabelCrop
) -> Image.Image:
    """Every code on the generator's average object, under its number."""
    tile = _tile(ACROSS, crop)
    sheet = _paper(min(ACROSS, len(codes)), -(-len(codes) // ACROSS), tile)
    for first in tqdm(range(0, len(codes), ACROSS), desc="views"):
        some = codes[first : first + ACROSS]
        for j, image in enumerate(images_of_average(generator, some, crop)):
            _paste(sheet, image, tile, first // ACROSS, j, str(first + j))
    return sheet


def _tile(across: int, crop: LabelCrop) -> tuple[int, int]:
    low, high = TILE_WIDTHS
    width = min(high, max(low, SHEET_WIDTH // across))
    return width, max(1, round(width * crop.height / crop.width))


def _paper(across: int, down: int, tile: tuple[int, int]) -> Image.Image:
    width, height = tile
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
    x, y = GAP + column * (tile[0] + GAP), GAP + row * (tile[1] + CAPTION + GAP)
    ImageDraw.Draw(sheet).text((x + 2, y), caption, INK)
    grows = image.shape[1] < tile[0]
    kind = Image.Resampling.BICUBIC if grows else Image.Resampling.BOX
    sheet.paste(Image.fromarray(image).resize(tile, kind), (x, y + CAPTION))
