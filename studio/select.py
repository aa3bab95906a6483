"""Smart select: the region around a click whose features resemble those of the clicked pixels.

The generator's feature maps of an image are reduced once to a table of a few values per pixel: each
channel is standardized, fine maps weigh more than coarse ones, and principal components are kept. A
click then costs distances within the table. The answer is a level for each pixel, so that the
browser can grow and shrink the region without asking again:

    region at level k = pixels that are joined to a clicked one by pixels of distance <= threshold k
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from nets.features import reduce_tap
from nets.generator import Generator
from studio.project import Project
from studio.turns import Turns
from training.images.image_set import ImageSet
from training.label_crop import LabelCrop

COMPONENTS = 24
FITTED_IMAGES, FITTED_PIXELS = 4, 4096  # that the components are computed from
TABLES = 8  # in memory; one of 512 px takes 25 MB
LEVELS = 40
SEEDS, RIVALS = 48, 96  # clicked pixels, and pixels of other classes, that distances are taken to
BLOCK = 2048  # pixels whose distances are computed at once
OUTSIDE = 255  # level of pixels that no level reaches
MIN_AREA, MAX_SHARE, AREA_POWER = 3, 0.85, 0.04  # of a proposed region
PART = 0.5  # most of a painted class that a click of another class takes from it
Point = tuple[int, int]  # column, row


@dataclass(frozen=True)
class Projection:
    """Channels of the hypercolumn -> components, by tap."""

    weights: list[Tensor]  # [C, components] of each tap
    bias: Tensor  # [components]


@dataclass(frozen=True)
class Selection:
    """Levels of the pixels, and the level that is proposed."""

    levels: NDArray[np.uint8]  # [H, W]
    proposed: int


class FeatureTables:
    """Tables of a project's images, made when first asked for. Methods are thread-safe."""

    def __init__(self, project: Project, generator: Generator, turns: Turns) -> None:
        self.project, self._generator, self._turns = project, generator, turns
        self._lock = threading.Lock()  # of what follows
        self._projection: Projection | None = None
        self._tables: OrderedDict[str, NDArray[np.float16]] = OrderedDict()

    def table(self, stem: str) -> NDArray[np.float32]:
        """[H, W, components] of an image. Raises NotFound."""
        with self.project.lock:
            row, images = self.project.row(stem), self.project.images
        key = images.index.images[row].pixels_sha256
        found = self._known(key)
        if found is None:
            with self._turns.first():
                found = self._known(key)  # of a thread that had the turn before
                if found is None:
                    found = self._made(images, row)
                    with self._lock:
                        self._tables[key] = found
                        while len(self._tables) > TABLES:
                            self._tables.popitem(last=False)
        return found.astype(np.float32)

    def _known(self, key: str) -> NDArray[np.float16] | None:
        with self._lock:
            found = self._tables.get(key)
            if found is not None:
                self._tables.move_to_end(key)
            return found

    def _made(self, images: ImageSet, row: int) -> NDArray[np.float16]:
        """The table of an image; only within a turn."""
        if self._projection is None:
            chosen = np.linspace(0, len(images) - 1, min(FITTED_IMAGES, len(images)))
            ws = images.ws[chosen.astype(int)]
            self._projection = fitted_projection(self._generator, ws, images.crop)
        return projected(_taps(self._generator, images.ws[row]), self._projection, images.crop)

    def select(
        self, stem: str, seeds: Sequence[Point], class_id: int, mask: NDArray[np.uint8]
    ) -> Selection:
        """The region around clicked pixels of an image that gets class `class_id`. What is painted
        in `mask` [H, W] holds it back, but for the classes that were clicked, which it may
        correct. Raises NotFound."""
        table = self.table(stem)
        clicked = {int(mask[y, x]) for x, y in seeds} - {self.project.ignore_id, class_id}
        other = ~np.isin(mask, [self.project.ignore_id, class_id, *clicked])
        # A click on what is painted means a part of it, such as the nose on a painted face.
        painted = int(np.isin(mask, list(clicked)).sum())
        return selection(table, seeds, other, PART * painted if painted else np.inf)


@torch.no_grad()
def fitted_projection(generator: Generator, ws: NDArray[np.float32], crop: LabelCrop) -> Projection:
    """Principal components of the standardized channels over pixels of some images [n, ...]."""
    rng = torch.Generator().manual_seed(0)
    rows = torch.randint(crop.size[0], (FITTED_PIXELS,), generator=rng)
    columns = torch.randint(crop.size[1], (FITTED_PIXELS,), generator=rng)
    parts: list[list[Tensor]] = []
    for w in ws:
        taps = [reduce_tap(t, crop.size) for t in _taps(generator, w)]
        parts.append([_at(tap, rows, columns, crop) for tap in taps])
    samples = [torch.cat(tap) for tap in zip(*parts, strict=True)]  # [pixels, C] of each tap
    means = [s.mean(dim=0) for s in samples]
    scales = [
        sample.std(dim=0).clamp(min=1e-6) * (sample.shape[1] * crop.grid / extent) ** 0.5
        for sample, (extent, _) in zip(samples, generator.config.taps, strict=True)
    ]
    standard = torch.cat(
        [(s - m) / d for s, m, d in zip(samples, means, scales, strict=True)], dim=1
    )
    count = min(COMPONENTS, standard.shape[1])
    with torch.random.fork_rng(devices=[]):  # it draws; another start gives the same table
        torch.manual_seed(0)
        _, _, axes = torch.pca_lowrank(standard, q=count, center=False, niter=4)
    split = axes.split([s.shape[1] for s in samples])
    weights = [a / d[:, None] for a, d in zip(split, scales, strict=True)]
    bias = -torch.stack([m @ w for m, w in zip(means, weights, strict=True)]).sum(dim=0)
    return Projection(weights, bias)


@torch.no_grad()
def projected(taps: list[Tensor], projection: Projection, crop: LabelCrop) -> NDArray[np.float16]:
    """Taps [1, C, h, w] of an image -> [H, W, components] of the crop. Projection and resizing are
    both linear, so the taps are projected at their own resolution."""
    total = projection.bias[:, None, None].expand(-1, *crop.size).clone()
    for tap, weight in zip(taps, projection.weights, strict=True):
        product = torch.einsum("ck,nchw->nkhw", weight, reduce_tap(tap, crop.size))
        if product.shape[-2:] != crop.size:
            product = F.interpolate(product, crop.size, mode="bilinear", align_corners=False)
        total += product[0]
    rows = total[:, crop.crop_top : crop.crop_top + crop.height]
    return rows.permute(1, 2, 0).contiguous().numpy().astype(np.float16)


def selection(
    table: NDArray[np.float32],
    seeds: Sequence[Point],
    other: NDArray[np.bool_],
    most_pixels: float,
) -> Selection:
    """Levels around the seeds; pixels of `other` [H, W] and what resembles them come late. The
    proposed region has at most `most_pixels`, if any level has so few."""
    height, width, _ = table.shape
    thinned = [seeds[i] for i in np.linspace(0, len(seeds) - 1, min(SEEDS, len(seeds))).astype(int)]
    columns, rows = np.array(thinned).T
    distance = nearest_distance(table, table[rows, columns])
    rivals = np.flatnonzero(other)
    if len(rivals):
        chosen = rivals[np.linspace(0, len(rivals) - 1, min(RIVALS, len(rivals))).astype(int)]
        away = nearest_distance(table, table.reshape(height * width, -1)[chosen])
        distance = distance / (distance + away + 1e-6)
        distance[other] = np.inf
    levels = np.full((height, width), OUTSIDE, np.uint8)
    nearest = np.searchsorted(thresholds_of(distance), distance.ravel()).astype(np.uint8)
    nearest = nearest.reshape(height, width)  # the first level whose threshold a pixel is within
    for k in range(LEVELS):
        parts, count = ndimage.label(nearest <= k)
        reached = np.zeros(count + 1, bool)
        reached[parts[rows, columns]] = True
        reached[0] = False
        np.minimum(levels, k, out=levels, where=reached[parts])
    return Selection(levels, proposed_level(levels, table, most_pixels))


def nearest_distance(
    table: NDArray[np.float32], points: NDArray[np.float32]
) -> NDArray[np.float32]:
    """[H, W]: distance of each pixel of [H, W, d] to the nearest of the points [n, d]."""
    flat = table.reshape(-1, table.shape[2])
    # |a - b|^2 = |a|^2 + (|b|^2 - 2 a b), of which the first is the same for all points.
    factors, norms = -2 * points.T, (points**2).sum(axis=1)
    squared = np.einsum("nd,nd->n", flat, flat)
    for start in range(0, len(flat), BLOCK):  # what is between stays in the processor's cache
        block = slice(start, start + BLOCK)
        squared[block] += (flat[block] @ factors + norms).min(axis=1)
    nearest: NDArray[np.float32] = np.sqrt(np.maximum(squared, 0))
    return nearest.reshape(table.shape[:2])


def thresholds_of(distance: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distances that reach from 3 pixels to nearly all, closer together where areas are small."""
    known = np.sort(distance[np.isfinite(distance)].ravel())
    shares = np.geomspace(min(1.0, 3 / len(known)), 0.98, LEVELS)
    picked = known[np.minimum((shares * len(known)).astype(int), len(known) - 1)]
    even = np.linspace(picked[0], picked[-1], LEVELS)
    return np.sort((picked.astype(np.float64) + even) / 2)


def proposed_level(
    levels: NDArray[np.uint8], table: NDArray[np.float32], most_pixels: float
) -> int:
    """The level whose outline runs along the largest steps of the features.

    A pair of neighbors of levels a < b lies on the outlines of levels a to b - 1.
    """
    areas = np.bincount(levels.ravel(), minlength=OUTSIDE + 1)[:LEVELS].cumsum()
    steps, lengths = np.zeros(LEVELS + 1), np.zeros(LEVELS + 1)
    for axis in (0, 1):
        difference = np.diff(table, axis=axis)
        step = np.sqrt(np.einsum("hwd,hwd->hw", difference, difference)).ravel()
        pair = np.stack([np.delete(levels, -1, axis=axis), np.delete(levels, 0, axis=axis)])
        low, high = np.minimum(np.sort(pair.reshape(2, -1), axis=0), LEVELS)
        for total, weight in ((steps, step), (lengths, None)):
            total += np.bincount(low, weight, LEVELS + 1) - np.bincount(high, weight, LEVELS + 1)
    mean_step = steps.cumsum()[:LEVELS] / np.maximum(lengths.cumsum()[:LEVELS], 1)
    usable = (areas >= MIN_AREA) & (areas <= min(most_pixels, MAX_SHARE * levels.size))
    # Among equal outlines the larger region is meant more often.
    return int(np.where(usable, mean_step * areas**AREA_POWER, -1).argmax())


def _taps(generator: Generator, w: NDArray[np.float32]) -> list[Tensor]:
    device = generator.mapping.w_avg.device
    with torch.no_grad():
        return [
            t.float().cpu() for t in generator.synthesis(torch.from_numpy(w)[None].to(device)).taps
        ]


def _at(tap: Tensor, rows: Tensor, columns: Tensor, crop: LabelCrop) -> Tensor:
    """Values [P, C] of a tap [1, C, h, w] at the nearest of its pixels."""
    h, w = tap.shape[-2:]
    return tap[0][:, rows * h // crop.size[0], columns * w // crop.size[1]].t()
