"""One engine batch: draws of several streams -> w+ rows -> one run -> each stream's outcome.

Pure of threads and queues, see compute. A failure stays with the stream whose rows cause it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bundle.open import Bundle
from bundle.views import CAMERA_FIELDS
from engines.errors import DeviceLost, NotFiniteError
from engines.protocol import Engine, EngineResult, Mapping
from engines.sampling import view_numbers, ws_from_indices, ws_from_latents
from engines.signature import UNCERTAINTY
from service.delivery import Arrays, Outcome, Stream
from service.metrics import ModelMetrics
from service.query import Query
from service.scheduler import Draw

W, VIEW, CAMERA = "w", "view", "camera"  # outputs that the sampler gives, not the engine
Settled = tuple[Stream, Outcome]


@dataclass(frozen=True)
class Part:
    """One stream's rows of a batch."""

    stream: Stream
    first: int  # ordinal of the first row
    ws: NDArray[np.float32]  # [n, num_ws, w_dim]
    views: Arrays  # VIEW and CAMERA of the rows, as far as the bundle has them
    since: float  # when the rows began to wait

    def head(self, rows: int) -> "Part":
        """The first so many rows."""
        views = {name: array[:rows] for name, array in self.views.items()}
        return replace(self, ws=self.ws[:rows], views=views)


def part_from_draw(stream: Stream, draw: Draw, mapping: Mapping, bundle: Bundle) -> Part:
    """Draws the latents, or takes the caller's, and maps them. Raises EngineError."""
    query, generator = stream.query, bundle.manifest.generator
    indices = query.plan.indices(draw.first, draw.count)
    if query.latents is None:
        ws = ws_from_indices(
            mapping, generator, query.options, indices, stream.mt19937, bundle.views
        )
    else:
        row = int(indices[0])  # rows that a caller brings are never sharded
        rows = query.latents.rows[row : row + draw.count]
        ws = ws_from_latents(
            mapping, generator, query.options, query.latents.space, rows, row, bundle.views
        )
    return Part(stream, draw.first, ws, _views(query, indices, bundle), draw.since)


def _views(query: Query, indices: NDArray[np.uint64], bundle: Bundle) -> Arrays:
    """VIEW and CAMERA of these indices; the latter NaN where no code of the bank is used."""
    bank = bundle.views
    if bank is None:
        return {}
    numbers = view_numbers(query.options, indices, bank)
    if bank.cameras is None:
        return {VIEW: numbers}
    if query.options.view_mode == "drawn":
        unknown = np.full((len(indices), len(CAMERA_FIELDS)), np.nan, np.float32)
        return {VIEW: numbers, CAMERA: unknown}
    return {VIEW: numbers, CAMERA: bank.cameras[numbers]}


def outcomes_from_parts(
    engine: Engine, parts: Sequence[Part], metrics: ModelMetrics
) -> list[Settled]:
    """Runs all rows together; when that fails each part alone, so that it fails alone.

    Raises DeviceLost, which is no part's fault.
    """
    try:
        return _split(parts, _run(engine, parts, metrics))
    except DeviceLost:
        raise
    except Exception as error:
        if len(parts) > 1:
            return [s for part in parts for s in outcomes_from_parts(engine, [part], metrics)]
        if isinstance(error, NotFiniteError):
            return _outcomes_up_to_fault(engine, parts[0], error, metrics)
        return [(parts[0].stream, failed_outcome(parts[0].first, error))]


def failed_outcome(first: int, error: Exception) -> Outcome:
    """The stream ends before this ordinal."""
    return Outcome(first, 0, np.empty(0, np.intp), {}, 0.0, error)


def _run(engine: Engine, parts: Sequence[Part], metrics: ModelMetrics) -> EngineResult:
    ws = np.concatenate([part.ws for part in parts]) if len(parts) > 1 else parts[0].ws
    limits = np.concatenate(
        [np.full(len(part.ws), part.stream.query.max_uncertainty, np.float32) for part in parts]
    )
    wanted = {output.name for part in parts for output in part.stream.query.outputs}
    outputs = tuple(name for name in engine.outputs if name in wanted)
    started = time.monotonic()
    result = engine.run(ws, limits, outputs)
    metrics.engine_seconds.observe(time.monotonic() - started)
    metrics.batch_samples.observe(len(ws))
    metrics.computed.inc(len(ws))
    arrays = dict(result.arrays)
    if W in wanted:
        arrays[W] = ws[result.sample]
    for name in parts[0].views.keys() & wanted:
        arrays[name] = np.concatenate([part.views[name] for part in parts])[result.sample]
    return EngineResult(result.sample, arrays)


def _split(parts: Sequence[Part], result: EngineResult) -> list[Settled]:
    """Each stream's share. Shares are copied, so that a slow reader keeps alive only its own."""
    outcomes, start = [], 0
    for part in parts:
        low, high = np.searchsorted(result.sample, [start, start + len(part.ws)])
        rows = result.sample[low:high].astype(np.intp) - start
        names = [output.name for output in part.stream.query.outputs]
        arrays = {name: result.arrays[name][low:high] for name in names}
        if len(parts) > 1:
            arrays = {name: array.copy() for name, array in arrays.items()}
        outcome = Outcome(part.first, len(part.ws), rows, arrays, part.since)
        outcomes.append((part.stream, outcome))
        start += len(part.ws)
    return outcomes


def _outcomes_up_to_fault(
    engine: Engine, part: Part, error: NotFiniteError, metrics: ModelMetrics
) -> list[Settled]:
    """What comes before the first bad row is still good, wherever batches happen to begin."""
    good = min(error.rows, default=0)
    index = int(part.stream.query.plan.indices(part.first + good, 1)[0])
    fault = NotFiniteError(
        f"the {UNCERTAINTY} of index {index} is not finite, the model fails at this sample; "
        "start after it to go on without it",
        (good,),
    )
    settled = [(part.stream, failed_outcome(part.first + good, fault))]
    if good:
        settled = outcomes_from_parts(engine, [part.head(good)], metrics) + settled
    return settled
