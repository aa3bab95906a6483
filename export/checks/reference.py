"""ws -> outputs of the labeller by the papers' formulas, in eager torch.

Slow but literal: every export compares its graphs with this. The tests compare it with a second
reference that was written independently.
"""

from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from export.graph.refiner import RefinerStage
from export.graph.spec import LabelSpec
from nets.features import gather_features, hypercolumn
from nets.generator import Generator
from nets.interpreter import Interpreter
from nets.labels import (
    class_uncertainty,
    keypoints_from_heatmaps,
    majority,
    member_variance,
    top_mean,
)

MAX_HYPERCOLUMN_BYTES = 1 << 30
PIXELS_PER_CHUNK = 1 << 14

Arrays = dict[str, NDArray[Any]]


@torch.no_grad()
def reference_outputs(
    generator: Generator,
    interpreter: Interpreter | None,
    spec: LabelSpec,
    ws: NDArray[np.float32],  # [N, num_ws, w_dim]
    max_hypercolumn_bytes: int = MAX_HYPERCOLUMN_BYTES,  # above it, features are gathered by pixel
    refine: RefinerStage | None = None,  # float32
) -> Arrays:
    """All outputs of the labeller by name, [N, ...], unfiltered, and two margins.

    "mask_margin", float32 [N, H, W]: difference in logits between the best and second best class,
    of the member where it is smallest. "keypoints_margin", float32 [N, K]: difference between the
    two largest values of a heatmap. Where a margin is near 0, rounding may change the class or
    the pixel.
    """
    samples = [
        _sample_outputs(
            generator, interpreter, spec, torch.from_numpy(row[None]), max_hypercolumn_bytes, refine
        )
        for row in ws
    ]  # one sample at a time, because the concatenated features are large
    return {name: np.stack([s[name] for s in samples]) for name in samples[0]}


def _sample_outputs(
    generator: Generator,
    interpreter: Interpreter | None,
    spec: LabelSpec,
    ws: Tensor,  # [1, num_ws, w_dim]
    max_hypercolumn_bytes: int,
    refine: RefinerStage | None,
) -> Arrays:
    synthesis = generator.synthesis(ws)
    image = _label_image(synthesis.image, spec)
    outputs: Arrays = {"image": uint8_from_image(image if refine is None else refine(image, ws))}
    if interpreter is None:
        return outputs
    maps = head_maps(interpreter, synthesis.taps, spec, max_hypercolumn_bytes)
    if "segmentation" in maps:
        outputs["mask"], outputs["mask_margin"] = mask_and_margin(maps["segmentation"])
    if "keypoints" in maps:
        heatmaps = maps["keypoints"].mean(dim=0)
        outputs["keypoints"] = keypoints_from_heatmaps(heatmaps, spec.keypoint_window_px).numpy()
        outputs["keypoints_margin"] = peak_margin(heatmaps.numpy())
    if "depth" in maps:
        outputs["depth"] = maps["depth"][..., 0].mean(dim=0).numpy().astype(np.float16)
    if spec.score_source is not None:
        members = maps[spec.score_source]
        uncertainty = (
            class_uncertainty(members, spec.score_measure)
            if spec.score_source == "segmentation"
            else member_variance(members)
        )
        outputs["uncertainty"] = top_mean(uncertainty, spec.score_fraction).numpy()
        outputs["uncertainty_map"] = uncertainty.numpy().astype(np.float16)
    return outputs


def uint8_from_image(image: Tensor) -> NDArray[np.uint8]:
    """float32 [1, 3, H, W] in [-1, 1] -> uint8 [H, W, 3], truncated like the papers' code does."""
    scaled = (image[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255)
    array: NDArray[np.uint8] = scaled.to(torch.uint8).numpy()
    return array


def _label_image(image: Tensor, spec: LabelSpec) -> Tensor:
    """The image at the labels' size: resized to the grid, then cropped."""
    if tuple(image.shape[2:]) != spec.size:
        image = F.interpolate(image, size=spec.size, mode="bilinear", align_corners=False)
    return image[:, :, spec.crop_top : spec.crop_top + spec.height, : spec.width]


def head_maps(
    interpreter: Interpreter, taps: list[Tensor], spec: LabelSpec, max_hypercolumn_bytes: int
) -> dict[str, Tensor]:
    """Every member's raw outputs at every label pixel, {kind: [members, H, W, outputs]}."""
    rows = torch.arange(spec.crop_top, spec.crop_top + spec.height)
    flat = (rows[:, None] * spec.width + torch.arange(spec.width)).flatten()  # grid pixels
    features = sum(t.shape[1] for t in taps)
    all_features = (
        hypercolumn(taps, spec.size, spec.resize)[0].flatten(1).t()  # [pixels of the grid, D]
        if features * prod(spec.size) * 4 <= max_hypercolumn_bytes
        else None
    )
    chunks: dict[str, list[Tensor]] = {}
    for pixels in flat.split(PIXELS_PER_CHUNK):
        if all_features is not None:
            x = all_features[pixels]
        else:
            row, column = pixels // spec.width, pixels % spec.width
            x = gather_features(taps, row[None], column[None], spec.size, spec.resize)[0]
        for kind, raw in interpreter(x).items():
            chunks.setdefault(kind, []).append(raw)
    return {
        kind: torch.cat(parts, dim=1).unflatten(1, (spec.height, spec.width))
        for kind, parts in chunks.items()
    }


def mask_and_margin(logits: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Logits [m, H, W, C] -> mask uint8 [H, W] and its margin float32 [H, W].

    The mask is the majority of the members' classes, ties to the smallest id. The margin is that
    of `reference_outputs`; infinity if there is one class only.
    """
    mask: NDArray[np.uint8] = majority(logits).numpy()
    if logits.shape[-1] == 1:
        return mask, np.full(mask.shape, np.inf, np.float32)
    top = logits.topk(2, dim=-1).values  # [m, H, W, 2]
    margin: NDArray[np.float32] = (top[..., 0] - top[..., 1]).amin(dim=0).numpy()
    return mask, margin


def peak_margin(heatmaps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Heatmaps [H, W, K] -> [K]: the largest value less the second largest."""
    top = np.sort(heatmaps.reshape(-1, heatmaps.shape[2]), axis=0)[-2:]
    margin: NDArray[np.float32] = top[-1] - top[0]
    return margin
