"""The papers' formulas, literal and slow, which tests compare the exported graph with.

Per-sample weights and grouped convolutions, the concatenated hypercolumn, one nn.Sequential per
member, SciPy's mode, a sort for the top tenth. Nothing here is shared with `export`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # which imports its parts where they are used
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from export.graph.spec import LabelSpec
from nets.features import Resize, hypercolumn
from nets.generator import Generator as AnyGenerator
from nets.interpreter import Interpreter, member_as_sequential
from nets.labels import Measure
from nets.ops import blur, upsample_2x
from nets.stylegan2 import Generator, SynthesisLayer, ToRGBLayer

EPS32 = float(np.finfo(np.float32).eps)


def literal_layer(layer: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
    """Section 2.2 of StyleGAN2: weights modulated and demodulated for each sample."""
    n, i, h, width = x.shape
    o = layer.weight.shape[0]
    weights = layer.weight[None] * layer.affine(w)[:, None, :, None, None]  # [N, O, I, 3, 3]
    weights = weights * torch.rsqrt(weights.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    x = x.reshape(1, n * i, h, width)
    if layer.up:
        weights = weights.transpose(1, 2).reshape(n * i, o, 3, 3)
        x = F.conv_transpose2d(x, weights, stride=2, groups=n)
        x = blur(x, layer.resample_filter * 4, (1, 1, 1, 1))
    else:
        x = F.conv2d(x, weights.reshape(n * o, i, 3, 3), padding=1, groups=n)
    x = x.reshape(n, o, *x.shape[2:]) + layer.noise_const * layer.noise_strength
    x = F.leaky_relu(x + layer.bias[None, :, None, None], 0.2) * math.sqrt(2)
    clamp = layer.conv_clamp
    return x if clamp is None else x.clamp(-clamp, clamp)


def literal_torgb(layer: ToRGBLayer, x: Tensor, w: Tensor) -> Tensor:
    styles = layer.affine(w) * layer.weight_gain
    weights = layer.weight[None] * styles[:, None, :, None, None]  # [N, 3, I, 1, 1]
    y = torch.einsum("noiab,nihw->nohw", weights, x) + layer.bias[None, :, None, None]
    return y if layer.conv_clamp is None else y.clamp(-layer.conv_clamp, layer.conv_clamp)


def literal_synthesis(generator: Generator, ws: Tensor) -> tuple[Tensor, list[Tensor]]:
    """ws [N, num_ws, w_dim] -> image [N, 3, R, R] and taps, learned constant first."""
    blocks = generator.synthesis.blocks()
    x = blocks[0].const[None].repeat(ws.shape[0], 1, 1, 1)
    taps, image, row = [x], None, 0
    for block in blocks:
        for layer in [block.conv1] if block.is_first else [block.conv0, block.conv1]:
            x = literal_layer(layer, x, ws[:, row])
            taps.append(x)
            row += 1
        rgb = literal_torgb(block.torgb, x, ws[:, row])
        image = rgb if image is None else upsample_2x(image, block.resample_filter) + rgb
    assert image is not None
    return image, taps


def jensen_shannon(logits: Tensor) -> Tensor:
    """The DatasetGAN release from September 2021 on: logits [M, P, C] -> divergence [P]."""
    mixture = torch.softmax(logits, dim=-1).mean(dim=0)
    mixture = mixture / mixture.sum(dim=-1, keepdim=True)
    of_mixture = -(mixture * mixture.clamp(EPS32, 1 - EPS32).log()).sum(dim=-1)
    log_p = logits - logits.logsumexp(dim=-1, keepdim=True)
    of_members = -(log_p.exp() * log_p).sum(dim=-1)
    return of_mixture - of_members.mean(dim=0)


def entropy(logits: Tensor) -> Tensor:
    """Logits [M, P, C] -> Shannon entropy of the members' mean probabilities [P], nats."""
    mean = torch.softmax(logits.double(), dim=-1).mean(dim=0)
    return -(mean * mean.clamp(min=1e-300).log()).sum(dim=-1)


def least_confidence(logits: Tensor) -> Tensor:
    """Logits [M, P, C] -> 1 less the largest mean probability [P] (Lewis and Gale, 1994)."""
    return 1 - torch.softmax(logits.double(), dim=-1).mean(dim=0).amax(dim=-1)


MEASURES: dict[Measure, Callable[[Tensor], Tensor]] = {
    "jensen_shannon": jensen_shannon,
    "entropy": entropy,
    "least_confidence": least_confidence,
}


def top_mean(values: NDArray[np.float64], fraction: float) -> float:
    """Mean of the largest int(n * fraction) values."""
    return float(np.sort(values.ravel())[::-1][: int(values.size * fraction)].mean())


def centroid(heatmap: NDArray[np.float64], window: int) -> tuple[float, float, float]:
    """x, y in pixels (centers at +0.5) and confidence of one heatmap [H, W]."""
    row, column = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    rows, columns = np.mgrid[: heatmap.shape[0], : heatmap.shape[1]]
    near = (abs(rows - row) <= window) & (abs(columns - column) <= window)
    mass = np.maximum(heatmap, 0) * near
    if mass.sum() == 0:
        return column + 0.5, row + 0.5, heatmap[row, column]
    x = (mass * (columns + 0.5)).sum() / mass.sum()
    y = (mass * (rows + 0.5)).sum() / mass.sum()
    return x, y, heatmap[row, column]


@dataclass(frozen=True)
class Reference:
    """All outputs of the graph, as float64 or integers, and the margin of each pixel's class."""

    image: NDArray[np.uint8]  # [N, H, W, 3]
    mask: NDArray[np.int64]  # [N, H, W]
    margin: NDArray[np.float64]  # [N, H, W], least lead of any member's best class
    uncertainty: dict[Measure, NDArray[np.float64]]  # of the class, [N, H, W] each
    heatmaps: NDArray[np.float64]  # [N, K, H, W]
    heatmap_variance: NDArray[np.float64]  # [N, H, W]
    depth: NDArray[np.float64]  # [N, H, W]
    depth_variance: NDArray[np.float64]  # [N, H, W]

    def scored(self, spec: LabelSpec) -> NDArray[np.float64]:
        """The uncertainty map of a bundle of this spec."""
        if spec.score_source == "segmentation":
            return self.uncertainty[spec.score_measure]
        return self.heatmap_variance if spec.score_source == "keypoints" else self.depth_variance


@torch.no_grad()
def reference(
    generator: AnyGenerator,
    interpreter: Interpreter,
    ws: Tensor,
    grid: int,
    top: int,
    height: int,
    resize: Resize = "bilinear",
) -> Reference:
    """Outputs of all heads of `interpreter`, which must have all three kinds."""
    rows = slice(top, top + height)
    if isinstance(generator, Generator):
        image, taps = literal_synthesis(generator, ws)
    else:  # golden files of the public code hold nets to its pixels and taps
        synthesis = generator.synthesis(ws)
        image, taps = synthesis.image, synthesis.taps
    # A grid has the shape of the image, whose extent is the generator's resolution.
    across, down = (side * grid // generator.config.resolution for side in image.shape[:1:-1])
    if (down, across) != tuple(image.shape[2:]):
        image = F.interpolate(image, size=(down, across), mode="bilinear", align_corners=False)
    image = image[:, :, rows].permute(0, 2, 3, 1)
    features = hypercolumn(taps, (down, across), resize)[:, :, rows].permute(0, 2, 3, 1)
    shape = features.shape[:3]
    x = features.reshape(-1, features.shape[-1])
    outputs = {
        kind: torch.stack([member_as_sequential(head, k)(x) for k in range(head.config.members)])
        for kind, head in ((k, interpreter.head(k)) for k in interpreter.heads)
    }
    logits = outputs["segmentation"]
    votes = scipy.stats.mode(logits.argmax(dim=-1).numpy(), axis=0, keepdims=False).mode
    best = logits.topk(2, dim=-1).values
    heat, depth = outputs["keypoints"], outputs["depth"]

    def plane(t: Tensor) -> NDArray[np.float64]:
        planes: NDArray[np.float64] = t.double().reshape(shape).numpy()
        return planes

    return Reference(
        image=(image * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy(),
        mask=votes.reshape(shape),
        margin=plane((best[..., 0] - best[..., 1]).amin(dim=0)),
        uncertainty={name: plane(measure(logits)) for name, measure in MEASURES.items()},
        heatmaps=heat.mean(dim=0).reshape(*shape, -1).permute(0, 3, 1, 2).double().numpy(),
        heatmap_variance=plane(heat.var(dim=0, correction=0).mean(dim=-1)),
        depth=plane(depth.mean(dim=0)[:, 0]),
        depth_variance=plane(depth.var(dim=0, correction=0)[:, 0]),
    )
