"""Raw outputs of the graph -> a checked EngineResult, or an error."""

import numpy as np
from numpy.typing import NDArray

from engines.content import BOXES, CONTENT, passes
from engines.errors import EngineRunError, NotFiniteError
from engines.protocol import EngineResult
from engines.signature import KEPT, SAMPLE, UNCERTAINTY


def result_from_arrays(
    raw: dict[str, NDArray[np.generic]],  # [N, ...] each, kept rows first; kept is int32 []
    feed: dict[str, NDArray[np.float32]],  # inputs of the run, [N, ...] each
    rows: int,  # n; rows n to N - 1 are padding
    outputs: tuple[str, ...],
) -> EngineResult:
    """Checks which rows the graph kept and cuts every output to those rows.

    The graph sorts its rows: kept ones first. For example, with N = 4, n = 3 and thresholds of
    0.5, scores [0.9, 0.1, 0.3, -] give sample = [1, 2, 0, 3] and kept = 2.

    A row passes if its score and its content do. A graph without either must keep all n rows.
    Raises NotFiniteError when one of the n rows has a score or content that is not finite,
    EngineRunError when the graph kept other rows than the scores and the content say.
    """
    order, kept = raw[SAMPLE].astype(np.int64), int(raw[KEPT].item())
    if not 0 <= kept <= len(order):
        raise EngineRunError(f"the graph kept {kept} of {len(order)} rows, which is impossible")
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise EngineRunError(
            f"the graph returned row order {order.tolist()}, which is not a permutation"
        )
    passed = np.ones(rows, np.bool_)
    if UNCERTAINTY in raw:
        scores = _finite_rows(UNCERTAINTY, raw[UNCERTAINTY], order, rows)
        passed &= scores <= feed["max_uncertainty"][:rows]
    content = None
    if CONTENT in raw:
        content = _finite_rows(CONTENT, raw[CONTENT], order, rows)
        passed &= passes(content, feed[BOXES][:rows])
    expected = np.flatnonzero(passed)
    if not np.array_equal(order[:kept], expected):
        raise EngineRunError(
            f"the graph kept rows {order[:kept].tolist()}; the scores say {expected.tolist()}"
        )
    arrays = {name: _prefix(raw[name], kept) for name in outputs}
    return EngineResult(expected.astype(np.int32), arrays, content)


def _finite_rows(
    name: str, array: NDArray[np.generic], order: NDArray[np.int64], rows: int
) -> NDArray[np.float32]:
    """The output's first n input rows, in their order. Raises NotFiniteError."""
    found = np.empty(array.shape, np.float32)
    found[order] = array
    found = found[:rows]
    finite = np.isfinite(found).reshape(rows, -1).all(axis=1)
    bad = tuple(np.flatnonzero(~finite).tolist())
    if bad:
        raise NotFiniteError(
            f"{name} of rows {list(bad)} is not finite; the batch is refused",
            bad,
            name,
        )
    return found


def _prefix(array: NDArray[np.generic], rows: int) -> NDArray[np.generic]:
    # A copy: a view would keep the whole batch in memory for a few kept rows.
    return array if rows == len(array) else array[:rows].copy()
