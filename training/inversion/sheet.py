"""Contact sheets of an inversion: report_1.png, report_2.png, ...

One row per image: the real image, the start's, the kept one's, and their enlarged difference.
Rows of doubtful images have red frames and captions.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.inversion.report import ImageReport, InversionReport, Keep

ROWS = 12  # images per sheet
CELL = 192  # width of a picture, pixels
CAPTION, GAP, MARGIN, HEAD = 22, 6, 12, 34  # pixels
DIFFERENCE_GAIN = 4
PAPER, INK, FAINT, ALARM = (250, 250, 247), (32, 33, 36), (112, 114, 120), (190, 30, 30)
FRAME = 3  # width of the frames around doubtful images, pixels


def write_sheets(
    folder: Path,
    report: InversionReport,
    start_name: str,
    keep: Keep,
    pictures: tuple[NDArray[np.uint8], ...],  # real, start, kept: uint8 [n, height, width, 3] each
) -> list[Path]:
    """Writes the sheets, 12 images each, and returns their paths."""
    paths = []
    for first in range(0, len(report.images), ROWS):
        rows = slice(first, first + ROWS)
        sheet_pictures = tuple(images[rows] for images in pictures)
        sheet = sheet_from_entries(report.images[rows], start_name, keep, sheet_pictures)
        paths.append(folder / f"report_{first // ROWS + 1}.png")
        sheet.save(paths[-1])
    return paths


def sheet_from_entries(
    entries: list[ImageReport],
    start_name: str,
    keep: Keep,
    pictures: tuple[NDArray[np.uint8], ...],
) -> Image.Image:
    """One sheet: for each image a row of four pictures, with its scores below."""
    height = round(CELL * pictures[0].shape[1] / pictures[0].shape[2])
    pitch = height + CAPTION + GAP
    size = (2 * MARGIN + 4 * (CELL + GAP) - GAP, HEAD + len(entries) * pitch + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    titles = ("real", start_name, keep, f"difference x{DIFFERENCE_GAIN}")
    for column, title in enumerate(titles):
        draw.text((MARGIN + column * (CELL + GAP), 10), title, FAINT, font)
    for row, entry in enumerate(entries):
        y = HEAD + row * pitch
        doubtful = entry.verdict != "kept"
        for column, cell in enumerate(_cells(*(images[row] for images in pictures))):
            picture = Image.fromarray(cell).resize((CELL, height), _resampling(cell, height))
            x = MARGIN + column * (CELL + GAP)
            sheet.paste(picture, (x, y))
            if doubtful:
                corners = (x, y, x + CELL - 1, y + height - 1)
                draw.rectangle(corners, outline=ALARM, width=FRAME)
        words = _caption(entry, keep)
        draw.text((MARGIN, y + height + 3), words, ALARM if doubtful else INK, font)
    return sheet


def _cells(
    real: NDArray[np.uint8], start: NDArray[np.uint8], kept: NDArray[np.uint8]
) -> Iterator[NDArray[np.uint8]]:
    yield from (real, start, kept)
    difference = np.abs(real.astype(np.int16) - kept) * DIFFERENCE_GAIN
    yield difference.clip(0, 255).astype(np.uint8)


def _resampling(cell: NDArray[np.uint8], height: int) -> Image.Resampling:
    larger = cell.shape[0] > height or cell.shape[1] > CELL
    return Image.Resampling.BOX if larger else Image.Resampling.NEAREST


def _caption(entry: ImageReport, keep: Keep) -> str:
    scores = entry.best if keep == "best" else entry.last
    words = [Path(entry.image).stem]
    if scores.psnr_db is not None and scores.perceptual is not None:
        words += [f"{scores.psnr_db:.1f} dB", f"perceptual {scores.perceptual:.3f}"]
    if entry.verdict != "kept":
        words += [f"{entry.verdict}: {entry.reason}"]
    return "   ".join(words)
