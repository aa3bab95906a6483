"""Contact sheets of an inversion: report_1.png, report_2.png, ...

One row per image: the real image, the start's, the kept one's, and their enlarged difference.
Rows of doubtful images have red frames and titles.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.inversion.report import ImageReport, InversionReport, Keep
from training.sheet import Row, sheet_from_rows

ROWS = 12  # images per sheet
CELL = 192  # width of a picture, pixels
DIFFERENCE_GAIN = 4


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
    """One sheet: for each image a row of four pictures, with its scores to the left."""
    height = round(CELL * pictures[0].shape[1] / pictures[0].shape[2])
    rows = [
        Row(
            _title(entry, keep),
            [
                Image.fromarray(cell).resize((CELL, height), _resampling(cell, height))
                for cell in _cells(*(images[row] for images in pictures))
            ],
            doubtful=entry.verdict != "kept",
        )
        for row, entry in enumerate(entries)
    ]
    kept = f"{keep} latents"
    return sheet_from_rows(rows, ("real", start_name, kept, f"difference x{DIFFERENCE_GAIN}"))


def _cells(
    real: NDArray[np.uint8], start: NDArray[np.uint8], kept: NDArray[np.uint8]
) -> Iterator[NDArray[np.uint8]]:
    yield from (real, start, kept)
    difference = np.abs(real.astype(np.int16) - kept) * DIFFERENCE_GAIN
    yield difference.clip(0, 255).astype(np.uint8)


def _resampling(cell: NDArray[np.uint8], height: int) -> Image.Resampling:
    larger = cell.shape[0] > height or cell.shape[1] > CELL
    return Image.Resampling.BOX if larger else Image.Resampling.NEAREST


def _title(entry: ImageReport, keep: Keep) -> str:
    scores = entry.best if keep == "best" else entry.last
    words = [Path(entry.image).stem]
    if scores.psnr_db is not None and scores.perceptual is not None:
        words += [f"PSNR {scores.psnr_db:.1f} dB", f"perceptual {scores.perceptual:.3f}"]
    if entry.verdict != "kept":
        words += [f"{entry.verdict}: {entry.reason}"]
    return "\n".join(words)
