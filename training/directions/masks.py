"""Raw indices of a bundle -> masks: where each class is, for a fit, and edited masks to measure.

Where a class is in a sample is its occupancy: the mask is divided into cells, and each has a share
of the mask's pixels for each class. Occupancies are saved as they are computed, like the content of
a proposal's samples, so that an interrupted command goes on.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bundle.open import Bundle
from checkpoints import signals_held
from engines.edits import edited
from engines.masks import MaskEngine, Masks
from engines.open import EngineOptions, open_mapping
from engines.sampling import LatentOptions, w_from_indices, ws_from_indices
from training.directions.draws import Floats, SavedContent

MAX_SIDE, MAX_VALUES = 8, 1024  # cells in a row, at most, and values of one sample


def cells_of_classes(classes: int) -> int:
    """Number of cells in a row, and of rows: fewer with many classes."""
    return max(1, min(MAX_SIDE, math.isqrt(MAX_VALUES // classes)))


def occupancy_of_masks(masks: Masks, classes: int) -> Floats:
    """Share of the mask's pixels that each cell has of each class, [n, cells, classes]."""
    side = cells_of_classes(classes)
    height, width = masks.shape[1:]
    rows, columns = np.arange(height) * side // height, np.arange(width) * side // width
    cell = rows[:, None] * side + columns  # [H, W]
    places = side * side * classes
    counts = [np.bincount((cell * classes + mask).ravel(), minlength=places) for mask in masks]
    shares = np.stack(counts).astype(np.float32) / np.float32(height * width)
    return shares.reshape(len(masks), side * side, classes)


class MaskSampler:
    """Masks of one bundle with one set of options."""

    def __init__(
        self, bundle: Bundle, options: LatentOptions, engine: EngineOptions, saved: SavedContent
    ) -> None:
        """Opens engine and mapping network. Raises EngineError, BundleError."""
        heads = bundle.manifest.heads
        assert heads is not None and heads.segmentation is not None  # the caller looks
        self.classes = len(heads.segmentation.classes)
        self._bundle, self._options, self._saved = bundle, options, saved
        self._generator = bundle.manifest.generator
        self._mapping, self._engine = open_mapping(bundle, engine), MaskEngine(bundle, engine)

    def occupancies(self, count: int, progress: "tqdm[Any]") -> tuple[Floats, Floats]:
        """Untruncated w [count, w_dim] and occupancies [count, cells, classes] of the first
        indices. Raises EngineError, OSError, Interrupted."""
        indices = np.arange(count, dtype=np.uint64)
        new = [index for index in range(count) if index not in self._saved.rows]
        progress.update(count - len(new))
        batch = self._engine.batch_sizes[-1]
        with signals_held() as held:
            for start in range(0, len(new), batch):
                rows = indices[new[start : start + batch]]
                found = occupancy_of_masks(self._engine.run(self.ws(rows)), self.classes)
                self._saved.append(rows, found.reshape(len(rows), -1))
                progress.update(len(rows))
                held.end(self._saved.text())
        occupancy = np.stack([self._saved.rows[index] for index in range(count)])
        w = w_from_indices(self._mapping, self._generator, self._options, indices)
        return w, occupancy.reshape(count, -1, self.classes)

    def ws(self, indices: NDArray[np.uint64]) -> Floats:
        """Rows of w+ of these indices, [n, num_ws, w_dim]."""
        return ws_from_indices(
            self._mapping, self._generator, self._options, indices, None, self._bundle.views
        )

    def masks(self, ws: Floats, shift: Floats | None, progress: "tqdm[Any]") -> Masks:
        """Masks of these rows of w+ with an edit. Raises EngineError, Interrupted."""
        batch, parts = self._engine.batch_sizes[-1], list[Masks]()
        with signals_held() as held:
            for start in range(0, len(ws), batch):
                parts.append(self._engine.run(edited(ws[start : start + batch], shift)))
                progress.update(len(parts[-1]))
                held.end(self._saved.text())
        return np.concatenate(parts)
