"""A simulated person who knows the true mask, and what the work of labeling an image costs.

    work         cost
    a click      1: a corner of a polygon, its end, a smart selection, a fill, a dab of the brush,
                 accepting a proposal
    a stroke     1, and 1 for each eighth of the image's width that it is long
    holding      0.5, and 0.1 for each level by which a smart selection grows or shrinks (the page
                 needs 0.45 s and 0.11 s for them; a click is taken as a second)

Keys that choose a class or a tool cost nothing, nor does looking. The person is content with
outlines that are off by up to a tolerance, but no part may be missing. A careful one also repairs
outlines where several pixels side by side are wrong.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.brush_strokes import Strokes, best_strokes, disc_of_diameter
from benchmarks.outlines import outline_of_region, polygon_pixels, simplified

Mask = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Select = Callable[[Mask, int, int, int], tuple[Mask, int]]
"""mask, column, row, class -> levels [H, W] and the level proposed"""

STROKE_SHARE = 1 / 8  # of the image's width that costs as much as a click
HOLD, LEVEL = 0.5, 0.1
DAB_WRONG = 0.1  # share of a region by which a dab may differ from it
SMALL = 1.5  # a repair by the brush that costs no more is not worth a try with the smart tool
LARGE = 320  # pixels, about the area of the largest brush; the smart tool is tried first
MOST_REPAIRS = 300  # of an image; a bound that is not reached
OUTSIDE = 255  # level of pixels that no selection reaches


@dataclass
class Work:
    """What was done."""

    clicks: int = 0
    strokes: int = 0
    stroke_px: float = 0.0
    holds: int = 0
    levels: int = 0

    def cost(self, width: int) -> float:
        """Price of it all, in clicks, for images that are `width` pixels wide."""
        length = self.stroke_px / (STROKE_SHARE * width)
        held = HOLD * self.holds + LEVEL * self.levels
        return float(self.clicks + self.strokes + length + held)

    def add(self, strokes: Strokes) -> None:
        """Notes strokes; one without a length is a click."""
        if strokes.length_px:
            self.strokes += strokes.count
            self.stroke_px += strokes.length_px
        else:
            self.clicks += strokes.count

    def record(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Person:
    """Somebody who labels an image whose true classes [H, W] are known."""

    truth: Mask
    ignore_id: int
    tolerance_px: float
    least_px: int = 10_000  # wrong pixels side by side that are repaired at outlines, too
    small_px: int = 0  # area of regions that are repaired to the pixel

    @property
    def unit_px(self) -> float:
        """Length of a stroke that costs as much as a click."""
        return STROKE_SHARE * int(self.truth.shape[1])

    def polygons(self) -> tuple[Mask, Work]:
        """A blank image, labeled with polygons: by one fill what surrounds the rest, then every
        region from the largest to the smallest, over what it lies on.

        A side that a later region covers need not be exact: of the outlines with and without the
        later neighbors the one with fewer corners is drawn. A region that looks like a dab of the
        brush is one.
        """
        ground, *regions = sorted(regions_of(self.truth), key=lambda region: -on_border(region))
        regions.sort(key=lambda region: -int(filled(region).sum()))
        mask, work = np.full_like(self.truth, self.truth[ground][0]), Work(clicks=1)
        for place, region in enumerate(regions):
            if not self._is_faulty(mask, region):
                continue
            later = np.zeros_like(region)
            for other in regions[place + 1 :]:
                later |= other
            painted, clicks = self._cheapest_shape(region, later)
            mask[painted] = self.truth[region][0]
            work.clicks += clicks
        return mask, work

    def _cheapest_shape(self, region: Bools, later: Bools) -> tuple[Bools, int]:
        """Pixels of a shape for a region, and clicks to draw it; `later` pixels are painted over
        afterwards."""
        dab = self._dab(region, later)
        if dab is not None:
            return dab, 1
        wide, _ = ndimage.label(region | later)
        whole = wide == wide[tuple(np.argwhere(region)[0])]
        shapes = []
        for area in (filled(region), filled(whole)):
            corners = simplified(outline_of_region(area), self.tolerance_px)
            shapes.append((len(corners), polygon_pixels(corners, self.truth.shape)))
        corners_needed, painted = min(shapes, key=lambda shape: shape[0])
        return painted, corners_needed + 1  # the last click closes it

    def _dab(self, region: Bools, later: Bools) -> Bools | None:
        """A dab of the brush that is wrong at few of a region's pixels."""
        row, column = (int(np.rint(i.mean())) for i in np.nonzero(region))
        center = np.zeros_like(region)
        center[row, column] = True
        for diameter in range(1, self.truth.shape[1] // 4):
            painted = ndimage.binary_dilation(center, disc_of_diameter(diameter))
            wrong = (painted & ~region & ~later) | (region & ~painted)
            if wrong.sum() <= DAB_WRONG * region.sum():
                return painted
        return None

    def smart(self, mask: Mask, select: Select, save: Callable[[Mask], None]) -> Work:
        """Repairs a mask, blank or proposed, with the smart tool, fill and brush, the largest
        fault first. `save` gets the mask after each change."""
        work, tried = Work(), np.zeros(mask.shape, bool)
        for _ in range(MOST_REPAIRS):
            fault = next(iter(self.faults(mask)), None)
            if fault is None:
                return work
            self._repair(mask, fault, work, tried, select)
            save(mask)
        raise RuntimeError(f"{MOST_REPAIRS} repairs were not enough")

    def _repair(self, mask: Mask, fault: Bools, work: Work, tried: Bools, select: Select) -> None:
        class_id = int(self.truth[fault][0])
        row, column = deepest(fault)
        if fault.sum() <= LARGE or tried[fault].any():
            strokes = best_strokes(fault, self.truth == class_id, self.unit_px)
            if strokes.count + strokes.length_px / self.unit_px <= SMALL:
                mask[strokes.painted] = class_id
                work.add(strokes)
                return
        same, _ = ndimage.label(mask == mask[row, column])
        flooded = same == same[row, column]
        if self._gain(mask, flooded, class_id) >= 0.8 * fault.sum():
            mask[flooded] = class_id
            work.clicks += 1
            return
        if tried[fault].any():
            mask[strokes.painted] = class_id
            work.add(strokes)
            return
        tried |= fault
        levels, proposed = select(mask, column, row, class_id)
        work.clicks += 1
        level, steps = self._best_level(mask, levels, proposed, class_id)
        if steps:
            work.holds += 1
            work.levels += steps
        chosen = levels <= level
        # It is shown before it is painted; what repairs little is canceled.
        if self._gain(mask, chosen, class_id) >= 0.4 * fault.sum():
            mask[chosen] = class_id

    def _best_level(
        self, mask: Mask, levels: Mask, proposed: int, class_id: int
    ) -> tuple[int, int]:
        """The level that repairs most, and how many steps from the proposed one it is."""
        present = np.unique(levels[levels != OUTSIDE]).astype(int)  # the clicked pixel has one
        gains = [self._gain(mask, levels <= level, class_id) for level in present]
        best, at = int(np.argmax(gains)), int(np.searchsorted(present, proposed, "right")) - 1
        at = max(at, 0)
        if gains[best] - gains[at] <= 2:  # not worth holding for
            return int(present[at]), 0
        return int(present[best]), abs(best - at)

    def _gain(self, mask: Mask, painted: Bools, class_id: int) -> float:
        """Pixels that painting repairs, less those that it spoils; blank ones count half, since
        another selection comes for them."""
        right = self.truth == class_id
        spoiled = painted & ~right
        return float(
            (painted & right & (mask != class_id)).sum()
            - (spoiled & (mask == self.truth)).sum()
            - 0.5 * (spoiled & (mask == self.ignore_id)).sum()
        )

    def faults(self, mask: Mask) -> Iterator[Bools]:
        """Connected pixels of one true class that are wrong, beyond the tolerance or many; the
        largest first."""
        wrong = mask != self.truth
        serious = wrong & ~self._tolerated()
        for region in regions_of(self.truth):
            if self._is_faulty(mask, region):
                serious |= wrong & region
            if region.sum() <= self.small_px:
                serious |= wrong & ndimage.binary_dilation(region)
        found = []
        for class_id in np.unique(self.truth[wrong]):
            parts, count = ndimage.label(wrong & (self.truth == class_id))
            for part in (parts == k for k in range(1, count + 1)):
                if serious[part].any() or part.sum() >= self.least_px:
                    found.append(part)
        yield from sorted(found, key=lambda part: -int(part.sum()))

    def _is_faulty(self, mask: Mask, region: Bools) -> bool:
        """Whether most of a true region is wrong."""
        return bool((mask != self.truth)[region].mean() > 0.5)

    def _tolerated(self) -> Bools:
        """Pixels whose centers lie within the tolerance of a true outline."""
        near = np.zeros(self.truth.shape, bool)
        for class_id in np.unique(self.truth):
            inside = self.truth == class_id
            if not inside.all():
                near |= inside & (ndimage.distance_transform_edt(inside) - 0.5 <= self.tolerance_px)
        return near


def regions_of(truth: Mask) -> list[Bools]:
    """The connected regions of each class."""
    found = []
    for class_id in np.unique(truth):
        parts, count = ndimage.label(truth == class_id)
        found += [parts == k for k in range(1, count + 1)]
    return found


def filled(region: Bools) -> Bools:
    """A region with its holes."""
    whole: Bools = ndimage.binary_fill_holes(region)
    return whole


def on_border(region: Bools) -> int:
    """Number of a region's pixels at the border of the image."""
    return int(region.sum() - region[1:-1, 1:-1].sum())


def deepest(part: Bools) -> tuple[int, int]:
    """Row and column of the pixel that is farthest from the part's edge."""
    depth = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column)
