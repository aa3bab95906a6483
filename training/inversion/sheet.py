"""Sheets to look at: real image, the start's, the kept one, their difference enlarged."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.inversion.report import ImageReport, Keep, Report

ROWS = 12  # images of a sheet
CELL = 192  # pixels of a picture's width
CAPTION, GAP, MARGIN, HEAD = 22, 6, 12, 34
DIFFERENCE_GAIN = 4
PAPER, INK, FAINT, ALARM = (250, 250, 247), (32, 33, 36), (112, 114, 120), (190, 30, 30)
FRAME = 3  # pixels round the pictures of doubtful images


def write_sheets(
    folder: Path,
    report: Report,
    start_name: str,
    keep: Keep,
    pictures: tuple[NDArray[np.uint8], ...],  # real, start and kept: [n, height, width, 3] each
) -> list[Path]:
    """report_1.png, report_2.png ..., each of up to 12 images."""
    paths = []
    for first in range(0, len(report.images), ROWS):
        rows = slice(first, first + ROWS)
        part = tuple(images[rows] for images in pictures)
        sheet = sheet_from_entries(report.images[rows], start_name, keep, part)
        paths.append(folder / f"report_{first // ROWS + 1}.png")
        sheet.save(paths[-1])
    return paths


def sheet_from_entries(
    entries: list[ImageReport],
    start_name: str,
    keep: Keep,
    pictures: tuple[NDArray[np.uint8], ...],
) -> Image.Image:
    """A row of four pictures for each image, its figures below."""
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
        kept_well = entry.verdict == "kept"
        for column, cell in enumerate(_cells(*(images[row] for images in pictures))):
            picture = Image.fromarray(cell).resize((CELL, height), _filter(cell, height))
            x = MARGIN + column * (CELL + GAP)
            sheet.paste(picture, (x, y))
            if not kept_well:
                corners = (x, y, x + CELL - 1, y + height - 1)
                draw.rectangle(corners, outline=ALARM, width=FRAME)
        words = _caption(entry, keep)
        draw.text((MARGIN, y + height + 3), words, INK if kept_well else ALARM, font)
    return sheet


def _cells(
    real: NDArray[np.uint8], start: NDArray[np.uint8], kept: NDArray[np.uint8]
) -> Iterator[NDArray[np.uint8]]:
    yield from (real, start, kept)
    difference = np.abs(real.astype(np.int16) - kept) * DIFFERENCE_GAIN
    yield difference.clip(0, 255).astype(np.uint8)


def _filter(cell: NDArray[np.uint8], height: int) -> Image.Resampling:
    larger = cell.shape[0] > height or cell.shape[1] > CELL
    return Image.Resampling.BOX if larger else Image.Resampling.NEAREST


def _caption(entry: ImageReport, keep: Keep) -> str:
    figures = entry.best if keep == "best" else entry.last
    words = [Path(entry.image).stem]
    if figures.psnr_db is not None and figures.perceptual is not None:
        words += [f"{figures.psnr_db:.1f} dB", f"perceptual {figures.perceptual:.3f}"]
    if entry.verdict != "kept":
        words += [f"{entry.verdict}: {entry.reason}"]
    return "   ".join(words)
