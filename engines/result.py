"""What a device returned -> EngineResult, or an error; no engine trusts its graph unchecked."""

import numpy as np
from numpy.typing import NDArray

from engines.errors import EngineRunError, NotFiniteError
from engines.protocol import EngineResult
from engines.signature import KEPT, SAMPLE, UNCERTAINTY


def result_from_arrays(
    raw: dict[str, NDArray[np.generic]],  # [N, ...] each, kept rows first; kept is int32 []
    rows: int,  # real ones, the first of the N
    max_uncertainty: NDArray[np.float32],  # [rows]
    outputs: tuple[str, ...],
) -> EngineResult:
    """Checks the bookkeeping against the scores and cuts every output to the kept prefix.

    Without a score among `raw` all real rows must be kept. Raises NotFiniteError when a real
    row has no finite score, EngineRunError when the graph kept other rows than it should.
    """
    order, kept = raw[SAMPLE].astype(np.int64), int(raw[KEPT].item())
    if not 0 <= kept <= len(order):
        raise EngineRunError(f"the graph says that it kept {kept} of {len(order)} rows")
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise EngineRunError(f"the graph returned rows {order.tolist()}; that is no reordering")
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
    # A copy, so that a few kept rows do not hold the memory of the whole batch.
    return array if rows == len(array) else array[:rows].copy()
