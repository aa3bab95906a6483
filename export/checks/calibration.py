"""Bundle -> calibration: quantiles of its score over samples of one set of sampling options, and
the content of these samples.

A sample is measured as a row: its content, of which the first value is the score, or the score
alone where the graph computes no content. A long calibration can save the rows it has in a file
beside the bundle, to resume from them after a kill.
"""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path

import numpy as np
import onnx.utils
from numpy.typing import NDArray
from tqdm import tqdm

from bundle.calibration import shortest_float32
from bundle.files import name_file, opened_to_append
from bundle.manifest import LABELLER, ScoreCalibration
from bundle.open import Bundle
from checkpoints import signals_held
from engines.content import BOXES, CONTENT, content_columns
from engines.onnx_graph import OnnxGraph, graph_from_bundle
from engines.open import EngineOptions
from engines.ort import OrtEngine, default_batch_sizes, only_size, open_session
from engines.protocol import Engine, Mapping
from engines.sampling import LatentOptions, check_options, key_from_options, ws_from_indices
from engines.signature import KEPT, SAMPLE, UNCERTAINTY
from export.errors import ExportError
from labelmint.latents import Mt19937Rows

MAX_LEVELS = 1024  # steps between quantiles
SAMPLES_PER_LEVEL = 4
VALUE_BYTES = 4  # size of a float32 value in the file


def calibration_from_engine(
    bundle: Bundle,
    engine: Engine,
    mapping: Mapping,
    options: LatentOptions,
    samples: int,
    saved: "SavedRows | None" = None,  # None: rows are not saved
) -> tuple[ScoreCalibration, NDArray[np.float32] | None]:
    """Quantiles of the scores of indices 0 to samples - 1, which are drawn as the service does, and
    the content of these samples, [samples, columns], if the graph computes any.

    Raises ExportError for a bundle without a score, SamplingError, EngineError, OSError.
    """
    refuse_without_score(bundle)
    check_options(bundle.manifest.generator, options, bundle.views)
    saved = saved or SavedRows(row_columns(bundle))
    rows = rows_from_engine(bundle, engine, mapping, options, samples, saved)
    calibration = ScoreCalibration(
        options=key_from_options(options),
        seed=options.seed,
        samples=samples,
        quantiles=quantiles_from_scores(rows[:, 0]),
    )
    return calibration, rows if content_columns(bundle.manifest) else None


def row_columns(bundle: Bundle) -> int:
    """Values of a row of a bundle with a score."""
    return max(1, len(content_columns(bundle.manifest)))


def open_score_engine(bundle: Bundle, options: EngineOptions, content: bool = False) -> Engine:
    """An engine on the CPU that computes the uncertainty, and the content if that is asked for and
    the bundle has it, but neither images nor labels, which saves time.

    The operators of both stay as they are in the labeller, so they are the same bits. Raises
    EngineOpenError, BundleError.
    """
    content = content and bool(content_columns(bundle.manifest))
    graph = graph_from_bundle(bundle, LABELLER["float32"])
    batch_sizes = options.batch_sizes or default_batch_sizes(bundle.manifest)
    part = _score_graph(graph, content)
    session = open_session(part, options.threads, only_size(batch_sizes))
    return OrtEngine(bundle.manifest, session, batch_sizes, (UNCERTAINTY,), content)


def _score_graph(graph: OnnxGraph, content: bool) -> OnnxGraph:
    """The part of a labeller that computes the score, and the content."""
    model = onnx.load_from_string(graph.content)
    inputs, outputs = ["ws", "max_uncertainty"], [UNCERTAINTY, SAMPLE, KEPT]
    if content:
        inputs, outputs = [*inputs, BOXES], [*outputs, CONTENT]
    else:
        _drop_predicate(model)
    model = onnx.shape_inference.infer_shapes(model)
    part = onnx.utils.Extractor(model).extract_model(inputs, outputs)
    onnx.checker.check_model(part)
    return OnnxGraph(graph.path, part.SerializeToString())


def _drop_predicate(model: onnx.ModelProto) -> None:
    """Keeps the samples that the score keeps, so that no content is needed."""
    by_score, by_content = {"max_uncertainty"}, {BOXES}
    for node in model.graph.node:  # an input comes before the nodes that need it
        scored, met = by_score.intersection(node.input), by_content.intersection(node.input)
        if scored and met:  # the product of the two decisions
            decision = onnx.helper.make_node("Identity", [scored.pop()], [node.output[0]])
            node.CopyFrom(decision)
            return
        by_score.update(node.output if scored else ())
        by_content.update(node.output if met else ())


def refuse_without_score(bundle: Bundle) -> None:
    """Raises ExportError for a bundle without a score."""
    if bundle.manifest.heads is None or bundle.manifest.heads.score_source is None:
        raise ExportError(
            f"{bundle.path} has no score_source, so it cannot be calibrated; use --calibrate 0"
        )


class SavedRows:
    """Rows of indices 0 to len(rows) - 1 from a file, which further rows are appended to."""

    def __init__(self, columns: int, file: BufferedRandom | None = None, samples: int = 0) -> None:
        """columns: values of a row. file None: there are no rows, and appended ones are not
        saved. samples: most rows to read; the file loses the others."""
        self._file = file
        known = 0 if file is None else os.fstat(file.fileno()).st_size
        data = b"" if file is None else file.read(min(known, samples * columns * VALUE_BYTES))
        size = len(data) - len(data) % (columns * VALUE_BYTES)  # a kill may have cut the last row
        values = np.frombuffer(data[:size], "<f4").astype(np.float32)
        self.rows: NDArray[np.float32] = values.reshape(-1, columns)
        if file is not None:
            file.truncate(size)
            file.seek(size)

    def keep(self, count: int) -> None:
        """Drops the rows of the indices from `count` on. Raises OSError."""
        self.rows = self.rows[:count]
        if self._file is not None:
            self._file.truncate(self.rows.nbytes)
            self._file.seek(self.rows.nbytes)

    def append(self, rows: NDArray[np.float32]) -> None:
        """Writes the rows of the next indices to the disk, with fsync. Raises OSError."""
        if self._file is not None:
            self._file.write(rows.astype("<f4").tobytes())
            self._file.flush()
            os.fsync(self._file.fileno())

    def text(self, known: int, samples: int) -> str:
        """What an interrupted calibration says."""
        if self._file is None:
            return "nothing was saved"
        words = f"{known} of {samples} scores are saved in {self._file.name}"
        return f"{words}; the same command goes on from there"


def identity_of_scores(bundle: Bundle, engine: Engine, options: LatentOptions) -> str:
    """Text that names everything the rows depend on. Raises SamplingError."""
    check_options(bundle.manifest.generator, options, bundle.views)
    columns = row_columns(bundle)
    return f"{bundle.manifest.bundle_id} {options} {engine.name} {engine.batch_sizes} {columns}"


@contextmanager
def open_saved_scores(
    bundle: Path, identity: str, columns: int, samples: int
) -> Iterator[SavedRows]:
    """Locks and reads the file of rows beside `bundle`.

    It stays after an interruption and on a full disk, if it has rows to go on from. It is removed
    if the block succeeds, or is refused: the same command would be refused again.

    identity: from identity_of_scores. The file's name has its SHA-256, so that rows of other
    options are never reused. Up to `samples` rows are read. Raises ExportError if another process
    has the lock, OSError.
    """
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = bundle.resolve().with_name(f".{bundle.resolve().name}.{digest}.scores")
    try:
        file = opened_to_append(path)
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror}); scores are not saved", file=sys.stderr)
        file = None
    if file is None:
        yield SavedRows(columns)
        return
    try:
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ExportError(
                    f"{bundle} is being calibrated for these options by another process; wait for "
                    "it"
                ) from None
            file.seek(0)
            useful = False
            try:
                yield SavedRows(columns, file, samples)
            except BaseException as error:
                refused = isinstance(error, Exception) and not isinstance(error, OSError)
                useful = not refused and os.fstat(file.fileno()).st_size >= VALUE_BYTES
                raise
            finally:
                if not useful:
                    path.unlink(missing_ok=True)
    except OSError as error:  # the disk is full, or the file cannot be locked
        name_file(error, path)
        raise


def rows_from_engine(
    bundle: Bundle,
    engine: Engine,
    mapping: Mapping,
    options: LatentOptions,
    samples: int,
    saved: SavedRows,
) -> NDArray[np.float32]:
    """Rows of indices 0 to samples - 1, [samples, columns]; only those not saved are measured."""
    columns = saved.rows.shape[1]
    rows = np.empty((samples, columns), np.float32)
    batch = engine.batch_sizes[-1]
    known = min(samples, len(saved.rows))
    known -= known % batch  # in the batches of one run: a sample's place decides its last bits
    saved.keep(known)
    rows[:known] = saved.rows[:known]
    generator = bundle.manifest.generator
    sequence = (
        Mt19937Rows(options.seed, generator.z_dim) if options.latent_source == "mt19937" else None
    )
    progress = tqdm(total=samples, initial=known, desc="calibrate", unit="sample")
    with signals_held() as held, progress:
        for start in range(known, samples, batch):
            indices = np.arange(start, min(start + batch, samples), dtype=np.uint64)
            ws = ws_from_indices(mapping, generator, options, indices, sequence, bundle.views)
            no_limits = np.full(len(ws), np.inf, np.float32)
            result = engine.run(ws, no_limits, (UNCERTAINTY,))
            scores: NDArray[np.float32] = result.arrays[UNCERTAINTY].astype(np.float32)
            found = scores[:, None] if result.content is None else result.content
            rows[start : start + len(ws)] = found[:, :columns]
            saved.append(rows[start : start + len(ws)])
            progress.update(len(ws))
            held.end(saved.text(start + len(ws), samples))
    return rows


def quantiles_from_scores(scores: NDArray[np.float32]) -> list[float]:
    """Evenly spaced quantiles from the smallest score to the largest, as float32 values.

    There is one step per 4 scores, and at most 1024: 4096 scores give 1025 quantiles.
    """
    steps = max(1, min(MAX_LEVELS, len(scores) // SAMPLES_PER_LEVEL))
    levels = np.linspace(0, 1, steps + 1)
    return [shortest_float32(q) for q in np.quantile(scores.astype(np.float64), levels)]
