"""The label branch as the papers state it, in eager torch: concatenate, classify, vote.

Slow and plain on purpose: the served graph is measured against this at every export. The
tests hold it to a second reference, written independently.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from export.label_spec import LabelSpec
from export.refiner_stage import RefinerStage
from nets.features import gather_features, hypercolumn
from nets.generator import Generator
from nets.interpreter import Interpreter

WHOLE_BYTES = 1 << 30
PIXELS_AT_ONCE = 1 << 14
EPS = 1.1920929e-07  # the mixture's probabilities are clamped to [EPS, 1 - EPS] in the log

Arrays = dict[str, NDArray[Any]]


@torch.no_grad()
def reference_outputs(
    generator: Generator,
    interpreter: Interpreter | None,
    spec: LabelSpec,
    ws: NDArray[np.float32],  # [N, num_ws, w_dim]
    whole_bytes: int = WHOLE_BYTES,  # larger concatenated tensors are gathered pixel by pixel
    refine: RefinerStage | None = None,  # in float32
) -> Arrays:
    """All outputs of the labeller, unfiltered, and two margins besides.

    "mask_margin" float32 [N, H, W] is the smallest lead of any member's winning class, in
    logits; "keypoints_margin" float32 [N, K] the lead of the heatmap's maximum. Where they are
    tiny, the same sums in another order may choose another class or pixel.
    """
    samples = [
        _one(generator, interpreter, spec, torch.from_numpy(row[None]), whole_bytes, refine)
        for row in ws
    ]  # one by one: the concatenated tensor is the point of all this, and it is large
    return {name: np.stack([s[name] for s in samples]) for name in samples[0]}


def _one(
    generator: Generator,
    interpreter: Interpreter | None,
    spec: LabelSpec,
    ws: Tensor,  # [1, num_ws, w_dim]
    whole_bytes: int,
    refine: RefinerStage | None,
) -> Arrays:
    synthesis = generator.synthesis(ws)
    image = _label_image(synthesis.image, spec)
    outputs: Arrays = {"image": uint8_from_image(image if refine is None else refine(image, ws))}
    if interpreter is None:
        return outputs
    maps = head_maps(interpreter, synthesis.taps, spec, whole_bytes)  # {kind: [m, H, W, outputs]}
    if "segmentation" in maps:
        outputs["mask"], outputs["mask_margin"] = vote(maps["segmentation"])
    if "keypoints" in maps:
        heatmaps = maps["keypoints"].mean(dim=0).numpy()
        outputs["keypoints"] = keypoints_from_heatmaps(heatmaps, spec.keypoint_window_px)
        outputs["keypoints_margin"] = peak_margin(heatmaps)
    if "depth" in maps:
        outputs["depth"] = maps["depth"][..., 0].mean(dim=0).numpy().astype(np.float16)
    if spec.score_source is not None:
        members = maps[spec.score_source]
        divergence = (
            jensen_shannon(members)
            if spec.score_source == "segmentation"
            else members.var(dim=0, correction=0).mean(dim=-1)
        )
        outputs["uncertainty"] = top_mean(divergence, spec.score_fraction).numpy()
        outputs["uncertainty_map"] = divergence.numpy().astype(np.float16)
    return outputs


def uint8_from_image(image: Tensor) -> NDArray[np.uint8]:
    """float32 [1, 3, H, W] in [-1, 1] -> uint8 [H, W, 3], truncating as the research code does."""
    scaled = (image[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255)
    array: NDArray[np.uint8] = scaled.to(torch.uint8).numpy()
    return array


def _label_image(image: Tensor, spec: LabelSpec) -> Tensor:
    """The image at the labels' size: resized to the grid before quantising, then cropped."""
    if image.shape[-1] != spec.grid:
        size = (spec.grid, spec.grid)
        image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
    return image[:, :, spec.crop_top : spec.crop_top + spec.height, : spec.width]


def head_maps(
    interpreter: Interpreter, taps: list[Tensor], spec: LabelSpec, whole_bytes: int
) -> dict[str, Tensor]:
    """Every member's raw output at every label pixel, {kind: [members, H, W, outputs]}."""
    rows = torch.arange(spec.crop_top, spec.crop_top + spec.height)
    flat = (rows[:, None] * spec.grid + torch.arange(spec.width)).flatten()  # grid pixels
    features = sum(t.shape[1] for t in taps)
    whole = (
        hypercolumn(taps, spec.grid, spec.resize)[0].flatten(1).t()  # [grid * grid, D]
        if features * spec.grid**2 * 4 <= whole_bytes
        else None
    )
    chunks: dict[str, list[Tensor]] = {}
    for pixels in flat.split(PIXELS_AT_ONCE):
        if whole is not None:
            x = whole[pixels]
        else:
            row, column = pixels // spec.grid, pixels % spec.grid
            x = gather_features(taps, row[None], column[None], spec.grid, spec.resize)[0]
        for kind, raw in interpreter(x).items():
            chunks.setdefault(kind, []).append(raw)
    return {
        kind: torch.cat(parts, dim=1).unflatten(1, (spec.height, spec.width))
        for kind, parts in chunks.items()
    }


def vote(logits: Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[m, H, W, C] -> majority of the members' classes, ties to the smallest id, [H, W]; and
    the smallest lead of a member's winner."""
    classes = logits.shape[-1]
    votes = F.one_hot(logits.argmax(dim=-1), classes).sum(dim=0).numpy()  # [H, W, C]
    mask = votes.argmax(axis=-1).astype(np.uint8)  # numpy promises the first maximum
    if classes == 1:
        return mask, np.full(mask.shape, np.inf, np.float32)
    top = logits.topk(2, dim=-1).values  # [m, H, W, 2]
    margin: NDArray[np.float32] = (top[..., 0] - top[..., 1]).amin(dim=0).numpy()
    return mask, margin


def jensen_shannon(logits: Tensor) -> Tensor:
    """[m, ..., C] -> [...] in nats: entropy of the mean less the mean entropy."""
    log_p = logits.log_softmax(dim=-1)
    mean = log_p.exp().mean(dim=0)
    mean = mean / mean.sum(dim=-1, keepdim=True)
    mixture = -(mean * mean.clamp(EPS, 1 - EPS).log()).sum(dim=-1)
    return mixture + (log_p.exp() * log_p).sum(dim=-1).mean(dim=0)


def top_mean(values: Tensor, fraction: float) -> Tensor:
    """Mean of the largest int(fraction * n) values, at least one; a float32 scalar."""
    count = max(1, int(values.numel() * fraction))
    return values.flatten().topk(count).values.mean()


def keypoints_from_heatmaps(
    heatmaps: NDArray[np.float32],  # [H, W, K], mean over the members
    window_px: int,
) -> NDArray[np.float32]:
    """[K, 3]: x, y with pixel centres at +0.5, and the maximum.

    Position: the centroid of the positive values within `window_px` of the first maximum,
    in both directions; the maximum itself where nothing is positive.
    """
    points = np.empty((heatmaps.shape[2], 3), np.float32)
    for k in range(len(points)):
        heat = heatmaps[:, :, k]
        row, column = divmod(int(heat.argmax()), heat.shape[1])  # numpy's first maximum
        top, left = max(row - window_px, 0), max(column - window_px, 0)
        window = heat[top : row + window_px + 1, left : column + window_px + 1]
        weights = np.maximum(window, 0).astype(np.float64)
        x, y, total = column + 0.5, row + 0.5, weights.sum()
        if total > 0:
            x = (weights.sum(axis=0) @ (left + np.arange(window.shape[1]) + 0.5)) / total
            y = (weights.sum(axis=1) @ (top + np.arange(window.shape[0]) + 0.5)) / total
        points[k] = x, y, heat[row, column]
    return points


def peak_margin(heatmaps: NDArray[np.float32]) -> NDArray[np.float32]:
    """[H, W, K] -> [K]: the maximum's lead over the second largest value."""
    top = np.sort(heatmaps.reshape(-1, heatmaps.shape[2]), axis=0)[-2:]
    margin: NDArray[np.float32] = top[-1] - top[0]
    return margin
