"""Contact sheet of test images, truth and each arm's predictions."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from examples.demo.scene import CLASS_NAMES, KEYPOINT_NAMES, PALETTE, SKELETON
from examples.train_segmentation.evaluate import predictions
from examples.train_segmentation.samples import Samples
from examples.train_segmentation.unet import UNet
from labelmint.panels import JOINTS, panel_from_image, panel_from_keypoints, panel_from_mask
from training.sheet import Row, sheet_from_rows

PANEL = (128, 128)  # pixels


def picture_from_networks(samples: Samples, networks: Sequence[tuple[str, UNet]]) -> Image.Image:
    """A column for each sample; rows: image, then masks, then keypoints of truth and networks."""
    palette = np.array([[c >> 16, c >> 8 & 255, c & 255] for c in PALETTE], np.uint8)
    images = samples.images.permute(0, 2, 3, 1).numpy()

    def masks(title: str, masks: NDArray[np.uint8]) -> Row:
        pairs = zip(masks, images, strict=True)
        return Row(f"masks\n{title}", [panel_from_mask(m, i, palette, PANEL) for m, i in pairs])

    def points(title: str, keypoints: NDArray[np.float32]) -> Row:
        pairs, grid = zip(keypoints, images, strict=True), images.shape[1:3]
        panels = [panel_from_keypoints(k, SKELETON, i, grid, PANEL) for k, i in pairs]
        return Row(f"keypoints\n{title}", panels)

    seen = samples.keypoints[..., 2:]
    mask_rows = [masks("truth", samples.masks.numpy())]
    point_rows = [points("truth", samples.keypoints.numpy())]
    for title, network in networks:
        found = list(predictions(network, samples.images))
        mask_rows.append(masks(title, torch.cat([m for m, _ in found]).numpy()))
        # Only truly visible keypoints are scored, so only those are drawn.
        located = torch.cat([torch.cat([p for _, p in found]), seen], dim=2)
        point_rows.append(points(title, located.numpy()))
    shown = Row("test image", [panel_from_image(image, PANEL) for image in images])
    classes = [
        ((r, g, b), name) for (r, g, b), name in zip(palette.tolist(), CLASS_NAMES, strict=True)
    ]
    legend = [*classes, *zip(JOINTS, KEYPOINT_NAMES, strict=False)]
    columns = [f"image {i}" for i in range(len(images))]
    return sheet_from_rows([shown, *mask_rows, *point_rows], columns, legend)
