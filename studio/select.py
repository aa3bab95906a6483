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
TABLES = 8  # in memory, in half precision; one of 512 px takes 13 MB
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
class FeatureTable:
    """Features of an image's pixels, and how much they differ between neighbors."""

    values: NDArray[np.float32]  # [H, W, components]
    steps: tuple[NDArray[np.float32], NDArray[np.float32]]  # [H - 1, W] down, [H, W - 1] right


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
        self._open: tuple[str, FeatureTable] | None = None  # of the image that was asked for last

    def table(self, stem: str) -> FeatureTable:
        """Features of an image. Raises NotFound."""
        with self.project.lock:
            row, images = self.project.row(stem), self.project.images
        key = images.index.images[row].pixels_sha256
        with self._lock:
            if self._open is not None and self._open[0] == key:
                return self._open[1]
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
        table = table_from_values(found)
        with self._lock:
            self._open = key, table
        return table

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


def table_from_values(values: NDArray[np.float16]) -> FeatureTable:
    """A table whose values are [H, W, components]."""
    wide: NDArray[np.float32] = torch.from_numpy(values).float().numpy()  # numpy's takes five times
    height, width, _ = wide.shape
    down = np.empty((height - 1, width), np.float32)
    right = np.empty((height, width - 1), np.float32)
    for y, row in enumerate(wide):  # what is between stays in the processor's cache
        right[y] = _lengths(np.diff(row, axis=0))
        if y:
            down[y - 1] = _lengths(row - wide[y - 1])
    return FeatureTable(wide, (down, right))


def selection(
    table: FeatureTable,
    seeds: Sequence[Point],
    other: NDArray[np.bool_],
    most_pixels: float,
) -> Selection:
    """Levels around the seeds; pixels of `other` [H, W] and what resembles them come late. The
    proposed region has at most `most_pixels`, if any level has so few."""
    height, width, _ = table.values.shape
    thinned = [seeds[i] for i in np.linspace(0, len(seeds) - 1, min(SEEDS, len(seeds))).astype(int)]
    columns, rows = np.array(thinned).T
    flat = table.values.reshape(height * width, -1)
    points = [flat[rows * width + columns]]
    rivals = np.flatnonzero(other)
    pixels = None
    if len(rivals):
        chosen = rivals[np.linspace(0, len(rivals) - 1, min(RIVALS, len(rivals))).astype(int)]
        points.append(flat[chosen])
        pixels = np.flatnonzero(~other)
    distance = relative_distance(flat, pixels, points)
    limits = thresholds_of(distance)
    # The largest of float32 below each, as the distances are: a comparison of two kinds is slow.
    within = limits.astype(np.float32)
    within = np.where(within > limits, np.nextafter(within, np.float32(-np.inf)), within)
    found = np.searchsorted(within, distance).astype(np.uint8)
    nearest = found  # the first level whose threshold a pixel is within
    if pixels is not None:
        nearest = np.full(height * width, LEVELS, np.uint8)
        nearest[pixels] = found
    levels = joined_levels(nearest.reshape(height, width), rows, columns)
    return Selection(levels, proposed_level(levels, table, most_pixels))


def relative_distance(
    flat: NDArray[np.float32],
    pixels: NDArray[np.int64] | None,
    points: Sequence[NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Distance of pixels, indices into `flat` [N, d] or None for all, to the nearest of the seeds
    [n, d]; with two sets of points, its share of that and the distance to the nearest rival."""
    count = len(flat) if pixels is None else len(pixels)
    found = np.empty(count, np.float32)
    # |a - b|^2 = |a|^2 + (|b|^2 - 2 a b), of which the first is the same for all points.
    sets = [(np.ascontiguousarray(-2 * p), (p**2).sum(axis=1)[:, None]) for p in points]
    for start in range(0, count, BLOCK):  # what is between stays in the processor's cache
        block = slice(start, start + BLOCK)
        part = flat[block] if pixels is None else flat[pixels[block]]
        squared = np.einsum("nd,nd->n", part, part)
        near, *away = (
            np.sqrt(np.maximum(squared + (factors @ part.T + norms).min(axis=0), 0))
            for factors, norms in sets
        )
        found[block] = near / (near + away[0] + 1e-6) if away else near
    return found


def joined_levels(
    nearest: NDArray[np.uint8], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """[H, W]: the first level k at which pixels with `nearest` <= k join each to a seed.

    A region lies within that of the next level, so that only the rectangle around it is searched.
    """
    levels = np.full(nearest.shape, OUTSIDE, np.uint8)
    inside, answer = nearest, levels
    for k in reversed(range(LEVELS)):
        parts, _ = ndimage.label(inside <= k)
        joined = parts[rows, columns]
        rows, columns = rows[joined > 0], columns[joined > 0]
        if not len(rows):
            break
        first, *more = np.unique(joined[joined > 0])
        reached = parts == first
        for part in more:
            reached |= parts == part
        answer[reached] = k
        high, wide = (np.flatnonzero(reached.any(axis=axis)) for axis in (1, 0))
        box = slice(high[0], high[-1] + 1), slice(wide[0], wide[-1] + 1)
        inside, answer = inside[box], answer[box]
        rows, columns = rows - high[0], columns - wide[0]
    return levels


def thresholds_of(distance: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distances that reach from 3 pixels to nearly all, closer together where areas are small."""
    count = len(distance)
    shares = np.geomspace(min(1.0, 3 / count), 0.98, LEVELS)
    picked = np.sort(distance)[np.minimum((shares * count).astype(int), count - 1)]
    even = np.linspace(picked[0], picked[-1], LEVELS)
    return np.sort((picked.astype(np.float64) + even) / 2)


def proposed_level(levels: NDArray[np.uint8], table: FeatureTable, most_pixels: float) -> int:
    """The level whose outline runs along the largest steps of the features.

    A pair of neighbors of levels a < b lies on the outlines of levels a to b - 1.
    """
    areas = np.bincount(levels.ravel(), minlength=OUTSIDE + 1)[:LEVELS].cumsum()
    steps, lengths = np.zeros(LEVELS + 1), np.zeros(LEVELS + 1)
    capped = np.minimum(levels, LEVELS)
    for axis, step in enumerate(table.steps):
        one, two = np.delete(capped, -1, axis=axis), np.delete(capped, 0, axis=axis)
        pairs = one != two
        one, two = one[pairs], two[pairs]
        low, high = np.minimum(one, two), np.maximum(one, two)
        for total, weight in ((steps, step[pairs]), (lengths, None)):
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


def _lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n] of [n, d]."""
    lengths: NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return lengths


def _at(tap: Tensor, rows: Tensor, columns: Tensor, crop: LabelCrop) -> Tensor:
    """Values [P, C] of a tap [1, C, h, w] at the nearest of its pixels."""
    h, w = tap.shape[-2:]
    return tap[0][:, rows * h // crop.size[0], columns * w // crop.size[1]].t()
