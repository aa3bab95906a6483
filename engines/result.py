"""Raw outputs of the graph -> a checked EngineResult, or an error."""

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineRunError, NotFiniteError
from engines.protocol import EngineResult
from engines.signature import KEPT, SAMPLE, UNCERTAINTY


def result_from_arrays(
    raw: dict[str, NDArray[np.generic]],  # [N, ...] each, kept rows first; kept is int32 []
    max_uncertainty: NDArray[np.float32],  # [n]; rows n to N - 1 are padding
    outputs: tuple[str, ...],
) -> EngineResult:
    """Checks which rows the graph kept and cuts every output to those rows.

    The graph sorts its rows: kept ones first. For example, with N = 4, n = 3 and thresholds of
    0.5, scores [0.9, 0.1, 0.3, -] give sample = [1, 2, 0, 3] and kept = 2.

    A graph without a score must keep all n rows. Raises NotFiniteError when one of the n rows has
    no finite score, EngineRunError when the graph kept other rows than the scores say.
    """
    rows = len(max_uncertainty)
    order, kept = raw[SAMPLE].astype(np.int64), int(raw[KEPT].item())
    if not 0 <= kept <= len(order):
        raise EngineRunError(f"the graph kept {kept} of {len(order)} rows, which is impossible")
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise EngineRunError(
            f"the graph returned row order {order.tolist()}, which is not a permutation"
        )
    expected = np.arange(rows)
    if UNCERTAINTY in raw:
        scores = np.empty(len(order), np.float32)
        scores[order] = raw[UNCERTAINTY]
        bad = tuple(np.flatnonzero(~np.isfinite(scores[:rows])).tolist())
        if bad:
            raise NotFiniteError(
                f"uncertainty of rows {list(bad)} is not finite; the batch is refused",
                bad,
            )
        expected = np.flatnonzero(scores[:rows] <= max_uncertainty)
    if not np.array_equal(order[:kept], expected):
        raise EngineRunError(
            f"the graph kept rows {order[:kept].tolist()}; the scores say {expected.tolist()}"
        )
    arrays = {name: _prefix(raw[name], kept) for name in outputs}
    return EngineResult(expected.astype(np.int32), arrays)


def _prefix(array: NDArray[np.generic], rows: int) -> NDArray[np.generic]:
    # A copy: a view would keep the whole batch in memory for a few kept rows.
    return array if rows == len(array) else array[:rows].copy()
