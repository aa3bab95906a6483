"""One engine batch: draws of several streams -> w+ rows -> one engine run -> filtered rows.

No threads and no queues here, see compute. A failure ends only the stream whose rows cause it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bundle.open import Bundle
from engines.content import boxes_of_all
from engines.edits import edited
from engines.errors import DeviceLost, NotFiniteError
from engines.protocol import Engine, EngineResult, Mapping
from engines.sampling import view_arrays, ws_from_indices, ws_from_latents
from engines.signature import WEIGHT, W
from service.delivery import Arrays, FilteredRows, Stream
from service.metrics import ModelMetrics
from service.scheduler import Draw

StreamRows = tuple[Stream, FilteredRows]


@dataclass(frozen=True)
class EngineRows:
    """One stream's rows of an engine batch, ready to run."""

    stream: Stream
    first: int  # ordinal of the first row
    ws: NDArray[np.float32]  # [n, num_ws, w_dim]
    views: Arrays  # VIEW [n] and CAMERA [n, 4], those that the bundle has
    since: float  # when the rows began to wait
    boxes: NDArray[np.float32] | None = None  # [n, B, 2, S] by content; None: any content passes

    def head(self, rows: int) -> "EngineRows":
        """The first `rows` rows."""
        views = {name: array[:rows] for name, array in self.views.items()}
        boxes = None if self.boxes is None else self.boxes[:rows]
        return replace(self, ws=self.ws[:rows], views=views, boxes=boxes)


def engine_rows_from_draw(
    stream: Stream, draw: Draw, mapping: Mapping, bundle: Bundle
) -> EngineRows:
    """Draws the latents, or takes the caller's, and maps them. Raises EngineError."""
    query, generator = stream.query, bundle.manifest.generator
    indices = query.plan.indices(draw.first, draw.count)
    if query.latents is None:
        ws = ws_from_indices(
            mapping, generator, query.options, indices, stream.mt19937, bundle.views
        )
    else:
        row = int(indices[0])  # the caller's rows are never sharded, so they follow each other
        rows = query.latents.rows[row : row + draw.count]
        ws = ws_from_latents(
            mapping, generator, query.options, query.latents.space, rows, row, bundle.views
        )
    views = view_arrays(query.options, indices, bundle.views)
    boxes = None
    if query.selection is not None:
        boxes = query.selection.boxes(query.options.seed, indices)
    return EngineRows(stream, draw.first, edited(ws, query.shift), views, draw.since, boxes)


def run_engine(
    engine: Engine, batch: Sequence[EngineRows], metrics: ModelMetrics
) -> list[StreamRows]:
    """Runs all rows in one batch; if that fails, each stream's rows on their own.

    Raises DeviceLost, which no stream's rows cause.
    """
    try:
        return _split(batch, _run(engine, batch, metrics))
    except DeviceLost:
        raise
    except Exception as error:
        if len(batch) > 1:
            return [result for rows in batch for result in run_engine(engine, [rows], metrics)]
        (rows,) = batch
        if isinstance(error, NotFiniteError):
            return _run_up_to_fault(engine, rows, error, metrics)
        return [(rows.stream, failed_rows(rows.first, error))]


def failed_rows(first: int, error: Exception) -> FilteredRows:
    """No rows, and an error that ends the stream before ordinal `first`."""
    return FilteredRows(first, 0, np.empty(0, np.intp), {}, 0.0, error)


def _run(engine: Engine, batch: Sequence[EngineRows], metrics: ModelMetrics) -> EngineResult:
    """One engine run; rejected rows are gone from its result, see engines.protocol."""
    ws = np.concatenate([rows.ws for rows in batch]) if len(batch) > 1 else batch[0].ws
    limits = np.concatenate(
        [np.full(len(rows.ws), rows.stream.query.max_uncertainty, np.float32) for rows in batch]
    )
    boxes = _boxes(batch)
    wanted = {output.name for rows in batch for output in rows.stream.query.outputs}
    outputs = tuple(name for name in engine.outputs if name in wanted)
    started = time.monotonic()
    result = engine.run(ws, limits, outputs, boxes)
    metrics.engine_seconds.observe(time.monotonic() - started)
    metrics.batch_samples.observe(len(ws))
    metrics.computed.inc(len(ws))
    arrays = dict(result.arrays)
    if W in wanted:
        arrays[W] = ws[result.sample]
    for name in batch[0].views.keys() & wanted:
        arrays[name] = np.concatenate([rows.views[name] for rows in batch])[result.sample]
    if WEIGHT in wanted:
        arrays[WEIGHT] = _weights(batch, result)[result.sample]
    return replace(result, arrays=arrays)


def _boxes(batch: Sequence[EngineRows]) -> NDArray[np.float32] | None:
    """The bounds of each row's content, [n, B, 2, S]; None if no stream has any."""
    first = next((rows.boxes for rows in batch if rows.boxes is not None), None)
    if first is None:
        return None
    everything = boxes_of_all(first.shape[1], first.shape[3])[None]
    each = [
        np.repeat(everything, len(rows.ws), axis=0) if rows.boxes is None else rows.boxes
        for rows in batch
    ]
    return np.concatenate(each)


def _weights(batch: Sequence[EngineRows], result: EngineResult) -> NDArray[np.float32]:
    """The weight of each row, [n]; it says nothing of rows that are rejected."""
    parts, start = [], 0
    for rows in batch:
        query, size = rows.stream.query, len(rows.ws)
        weights = np.ones(size, np.float32)
        if query.screen is not None:
            weights = query.screen.weights(rows.first, size)
        if query.selection is not None and result.content is not None:
            weights = weights * query.selection.weights(result.content[start : start + size])
        parts.append(weights)
        start += size
    return np.concatenate(parts)


def _split(batch: Sequence[EngineRows], result: EngineResult) -> list[StreamRows]:
    """Each stream's share, copied, so that a slow reader keeps only its own samples alive."""
    results, start = [], 0  # start: row of the batch
    for rows in batch:
        low, high = np.searchsorted(result.sample, [start, start + len(rows.ws)])
        passed = result.sample[low:high].astype(np.intp) - start
        names = [output.name for output in rows.stream.query.outputs]
        arrays = {name: result.arrays[name][low:high] for name in names}
        if len(batch) > 1:
            arrays = {name: array.copy() for name, array in arrays.items()}
        content = None
        if rows.stream.query.selection is not None and result.content is not None:
            content = result.content[start : start + len(rows.ws)]
        filtered = FilteredRows(
            rows.first, len(rows.ws), passed, arrays, rows.since, content=content
        )
        results.append((rows.stream, filtered))
        start += len(rows.ws)
    return results


def _run_up_to_fault(
    engine: Engine, rows: EngineRows, error: NotFiniteError, metrics: ModelMetrics
) -> list[StreamRows]:
    """Delivers the rows before the first faulty one, so that batch boundaries make no difference.

    The stream ends before the faulty row.
    """
    good = min(error.rows, default=0)
    index = int(rows.stream.query.plan.indices(rows.first + good, 1)[0])
    fault = NotFiniteError(
        f"the {error.output} of index {index} is not finite, the model fails at this sample; "
        "start after it to continue without it",
        (good,),
        error.output,
    )
    results = [(rows.stream, failed_rows(rows.first + good, fault))]
    if good:
        results = run_engine(engine, [rows.head(good)], metrics) + results
    return results
