"""Evaluation of a network: mIoU and PCK on rendered images, with the renderer's truth."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from examples.demo.scene import BACKGROUND, CLASS_NAMES
from examples.demo.score import score_labels
from examples.train_segmentation.samples import Samples
from examples.train_segmentation.unet import UNet, masks_from_logits, points_from_heatmaps

AT_ONCE = 64
PCK_SHARE = 0.1


@dataclass(frozen=True)
class Score:
    """Scores over all images of a set."""

    miou: float  # mean over classes; each IoU is over all pixels of all images
    iou: list[float]  # by class id; nan: the class is in neither truth nor prediction
    pck: float  # PCK at 0.1, see `pck`
    keypoint_error_px: float  # mean distance over truly visible keypoints


def evaluate(network: UNet, samples: Samples) -> Score:
    """Scores a network on rendered samples."""
    predicted = list(predictions(network, samples.images))
    masks = torch.cat([masks for masks, _ in predicted])
    return score_of(masks, torch.cat([points for _, points in predicted]), samples)


def score_of(masks: Tensor, points: Tensor, truth: Samples) -> Score:
    """Scores predictions: masks uint8 [n, H, W], keypoints float32 [n, K, 2] in pixels."""
    found = score_labels(
        masks.numpy(), points.numpy(), truth.masks.numpy(), truth.keypoints.numpy(),
        len(CLASS_NAMES),
    )  # fmt: skip
    share = pck(points, truth.keypoints, PCK_SHARE * head_extents(truth.masks))
    return Score(found.miou, found.iou.tolist(), share, found.keypoint_error_px)


@torch.no_grad()
def predictions(network: UNet, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Masks uint8 [m, H, W] and keypoints float32 [m, K, 2] of images uint8 [n, 3, H, W]."""
    network.eval()
    for part in images.split(AT_ONCE):
        said = network(part)
        yield masks_from_logits(said.classes), points_from_heatmaps(said.heatmaps)


def pck(points: Tensor, truth: Tensor, limits: Tensor) -> float:
    """Percentage of correct keypoints (PCK), as a fraction: those within the image's limit, among
    the truly visible ones. Points [n, K, 2], truth [n, K, 3], limits [n] in pixels.

    Yang and Ramanan, Articulated human detection with flexible mixtures of parts, TPAMI 2013:
    the limit is a fraction, here 0.1, of the longer side of the object's bounding box.
    """
    seen = truth[..., 2] > 0
    near = (points - truth[..., :2]).norm(dim=2) <= limits[:, None]
    return float(near[seen].float().mean())


def head_extents(masks: Tensor) -> Tensor:
    """Longer side in pixels of the box around everything but background: [n, H, W] -> [n]."""
    head = masks != BACKGROUND
    return torch.maximum(_extent(head.any(dim=1)), _extent(head.any(dim=2)))


def _extent(
    filled: Tensor,
) -> Tensor:  # bool [n, extent] -> pixels from the first to the last True, [n]
    place = torch.arange(1, filled.shape[1] + 1)
    last = (filled * place).amax(dim=1)
    first = torch.where(filled, place, filled.shape[1] + 1).amin(dim=1)
    return (last - first + 1).clamp(min=0)
