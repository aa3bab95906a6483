"""Labels of an interpreter for single images, computed in torch as in the served graph.

The first layer is linear, and so is resizing: it is applied to the taps at their own resolution and
its output is resized. The result is that of the hypercolumn, which is never built.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from checkpoints import InterpreterCard
from nets.config import SQUARE, size_at
from nets.features import Resize, reduce_tap
from nets.generator import Generator
from nets.interpreter import EnsembleHead, Interpreter, member_as_sequential
from nets.labels import (
    class_uncertainty,
    keypoints_from_heatmaps,
    majority,
    member_variance,
    top_mean,
)


@dataclass(frozen=True)
class Prediction:
    """Predicted labels of one image; None where the interpreter has no such head."""

    mask: NDArray[np.uint8] | None  # [H, W], class ids
    keypoints: NDArray[np.float32] | None  # [K, 3]: x, y in pixels (centers at +0.5), confidence
    depth: NDArray[np.float32] | None  # [H, W]
    uncertainty: float | None  # mean of the largest values of uncertainty_map
    uncertainty_map: NDArray[np.float32] | None  # [H, W]


@torch.no_grad()
def predictions(
    generator: Generator,
    interpreter: Interpreter,
    card: InterpreterCard,
    ws: NDArray[np.float32],  # [n, num_ws, w_dim]
) -> Iterator[Prediction]:
    """Labels of each image, in order; generator and interpreter are on one device."""
    device = generator.mapping.w_avg.device
    members = member_networks(interpreter)
    for row in tqdm(torch.from_numpy(ws).to(device), desc="labels", unit="image"):
        taps = generator.synthesis(row[None]).taps
        yield prediction_from_taps(members, card, taps)


def prediction_from_taps(
    members: dict[str, list[nn.Sequential]], card: InterpreterCard, taps: list[Tensor]
) -> Prediction:
    """Labels of one image from its taps [1, C, h, w]; `members` are networks by head."""
    raw = outputs_from_taps(members, card, taps)
    uncertainty = score = None
    if card.score_source is not None:
        source = raw[card.score_source]
        classes = card.score_source == "segmentation"
        uncertainty = (
            class_uncertainty(source, card.score_measure) if classes else member_variance(source)
        )
        score = float(top_mean(uncertainty, card.score_fraction))
    points = None
    if "keypoints" in raw and card.keypoints is not None:
        heatmaps = raw["keypoints"].mean(dim=0)
        points = keypoints_from_heatmaps(heatmaps, card.keypoints.window_px).cpu().numpy()
    return Prediction(
        mask=majority(raw["segmentation"]).cpu().numpy() if "segmentation" in raw else None,
        keypoints=points,
        depth=raw["depth"][..., 0].mean(dim=0).cpu().numpy() if "depth" in raw else None,
        uncertainty=score,
        uncertainty_map=None if uncertainty is None else uncertainty.cpu().numpy(),
    )


def outputs_from_taps(
    members: dict[str, list[nn.Sequential]], card: InterpreterCard, taps: list[Tensor]
) -> dict[str, Tensor]:
    """What each member says of each pixel of one image: [members, H, W, outputs], by head.

    Logits of classes, heatmaps or depths, from taps [1, C, h, w].
    """
    size = size_at(card.grid, card.start or SQUARE)
    levels = [
        torch.cat(list(group), dim=1)[0]  # [C, h, w]
        for _, group in groupby((reduce_tap(t, size) for t in taps), key=lambda tap: tap.shape[-1])
    ]
    rows = slice(card.crop_top, card.crop_top + card.height)
    return {
        kind: torch.stack([_output_map(net, levels, size, card.resize, rows) for net in networks])
        for kind, networks in members.items()
    }


def member_networks(interpreter: Interpreter) -> dict[str, list[nn.Sequential]]:
    """The members as networks of their own, by head."""
    return {kind: _members(interpreter.head(kind)) for kind in interpreter.heads}


def _members(head: EnsembleHead) -> list[nn.Sequential]:
    return [member_as_sequential(head, k) for k in range(head.config.members)]


def _output_map(
    member: nn.Sequential,
    levels: list[Tensor],
    size: tuple[int, int],  # of the label grid
    resize: Resize,
    rows: slice,
) -> Tensor:
    """Output of one member at every pixel of the crop, [H, W, outputs]."""
    first = member[0]
    assert isinstance(first, nn.Linear)
    total = first.bias[:, None, None]  # [h1, 1, 1]
    weights = first.weight.split([len(level) for level in levels], dim=1)
    corners = False if resize == "bilinear" else None
    for weight, level in zip(weights, levels, strict=True):
        product = torch.einsum("hc,cyx->hyx", weight, level)
        if tuple(product.shape[1:]) != size:
            product = F.interpolate(product[None], size=size, mode=resize, align_corners=corners)[0]
        total = total + product
    pixels = total[:, rows].flatten(1).t()  # [H * W, h1]
    output: Tensor = member[1:](pixels)
    return torch.unflatten(output, 0, (-1, size[1]))
