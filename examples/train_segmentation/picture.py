"""Contact sheet of test images, truth and each arm's predictions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from examples.demo.scene import CLASS_NAMES, PALETTE, SKELETON
from examples.train_segmentation.evaluate import predictions
from examples.train_segmentation.samples import Samples
from examples.train_segmentation.unet import UNet
from labelmint.panels import panel_from_image, panel_from_keypoints, panel_from_mask

PANEL, GAP, MARGIN, TITLES, LEGEND = 128, 4, 16, 150, 40  # pixels
PAPER, INK = (250, 250, 247), (32, 33, 36)


@dataclass(frozen=True)
class Row:
    """A title and one panel per image."""

    title: str
    panels: list[Image.Image]


def picture_from_networks(samples: Samples, networks: Sequence[tuple[str, UNet]]) -> Image.Image:
    """A column for each sample; rows: image, then masks, then keypoints of truth and networks."""
    palette = np.array([[c >> 16, c >> 8 & 255, c & 255] for c in PALETTE], np.uint8)
    images = samples.images.permute(0, 2, 3, 1).numpy()
    extent = (PANEL, PANEL)

    def masks(title: str, masks: NDArray[np.uint8]) -> Row:
        pairs = zip(masks, images, strict=True)
        return Row(title, [panel_from_mask(m, i, palette, extent) for m, i in pairs])

    def points(title: str, keypoints: NDArray[np.float32]) -> Row:
        pairs = zip(keypoints, images, strict=True)
        grid = images.shape[1:3]
        return Row(title, [panel_from_keypoints(k, SKELETON, i, grid, extent) for k, i in pairs])

    seen = samples.keypoints[..., 2:]
    mask_rows, point_rows = [masks("truth", samples.masks.numpy())], []
    point_rows.append(points("truth", samples.keypoints.numpy()))
    for title, network in networks:
        found = list(predictions(network, samples.images))
        mask_rows.append(masks(title, torch.cat([m for m, _ in found]).numpy()))
        # Only truly visible keypoints are scored, so only those are drawn.
        located = torch.cat([torch.cat([p for _, p in found]), seen], dim=2)
        point_rows.append(points(title, located.numpy()))
    shown = Row("test image", [panel_from_image(image, extent) for image in images])
    return _sheet([shown, *mask_rows, *point_rows], palette)


def _sheet(rows: Sequence[Row], palette: NDArray[np.uint8]) -> Image.Image:
    width = 2 * MARGIN + TITLES + len(rows[0].panels) * (PANEL + GAP)
    sheet = Image.new("RGB", (width, 2 * MARGIN + len(rows) * (PANEL + GAP) + LEGEND), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for number, row in enumerate(rows):
        top = MARGIN + number * (PANEL + GAP)
        draw.multiline_text((MARGIN, top + 2), _wrapped(row.title), INK, font)
        for column, panel in enumerate(row.panels):
            sheet.paste(panel, (MARGIN + TITLES + column * (PANEL + GAP), top))
    left, top = MARGIN + TITLES, sheet.height - LEGEND
    for name, color in zip(CLASS_NAMES, palette.tolist(), strict=True):
        draw.rectangle((left, top, left + 16, top + 16), tuple(color), INK)
        draw.text((left + 22, top - 1), name, INK, font)
        left += 118
    return sheet


def _wrapped(title: str) -> str:
    lines = [""]
    for word in title.split():
        if len(lines[-1]) + len(word) > 17:
            lines.append("")
        lines[-1] += f"{word} "
    return "\n".join(lines)
