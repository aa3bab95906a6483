"""Bundle -> calibration: quantiles of its score over samples of one set of sampling options.

A long calibration can save the scores it has in a file beside the bundle, to resume from them
after a kill.
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
from bundle.files import name_file
from bundle.manifest import LABELLER, ScoreCalibration
from bundle.open import Bundle
from checkpoints import signals_held
from engines.content import BOXES
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
SCORE_BYTES = 4  # size of a float32 score in the file


def calibration_from_engine(
    bundle: Bundle,
    engine: Engine,
    mapping: Mapping,
    options: LatentOptions,
    samples: int,
    saved: "SavedScores | None" = None,  # None: scores are not saved
) -> ScoreCalibration:
    """Quantiles of the scores of indices 0 to samples - 1, which are drawn as the service does.

    Raises ExportError for a bundle without a score, SamplingError, EngineError, OSError.
    """
    refuse_without_score(bundle)
    check_options(bundle.manifest.generator, options, bundle.views)
    saved = saved or SavedScores()
    scores = scores_from_engine(bundle, engine, mapping, options, samples, saved)
    return ScoreCalibration(
        options=key_from_options(options),
        seed=options.seed,
        samples=samples,
        quantiles=quantiles_from_scores(scores),
    )


def open_score_engine(bundle: Bundle, options: EngineOptions) -> Engine:
    """An engine on the CPU that computes the uncertainty alone, which saves time.

    The operators of the score stay as they are in the labeller, so the scores are the same bits.
    Raises EngineOpenError, BundleError.
    """
    graph = graph_from_bundle(bundle, LABELLER["float32"])
    batch_sizes = options.batch_sizes or default_batch_sizes(bundle.manifest)
    session = open_session(_score_graph(graph), options.threads, only_size(batch_sizes))
    return OrtEngine(bundle.manifest, session, batch_sizes, outputs=(UNCERTAINTY,))


def _score_graph(graph: OnnxGraph) -> OnnxGraph:
    """The part of a labeller that computes the score."""
    model = onnx.load_from_string(graph.content)
    _drop_predicate(model)
    model = onnx.shape_inference.infer_shapes(model)
    inputs, outputs = ["ws", "max_uncertainty"], [UNCERTAINTY, SAMPLE, KEPT]
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


class SavedScores:
    """Scores of indices 0 to len(scores) - 1 from a file, which further scores are appended to."""

    def __init__(self, file: BufferedRandom | None = None) -> None:
        """file None: there are no scores, and appended ones are not saved."""
        self._file = file
        data = b"" if file is None else file.read()
        size = len(data) - len(data) % SCORE_BYTES  # a kill may have cut the last score
        self.scores: NDArray[np.float32] = np.frombuffer(data[:size], "<f4").astype(np.float32)
        if file is not None:
            file.truncate(size)
            file.seek(size)

    def append(self, scores: NDArray[np.float32]) -> None:
        """Writes the scores of the next indices to the disk, with fsync. Raises OSError."""
        if self._file is not None:
            self._file.write(scores.astype("<f4").tobytes())
            self._file.flush()
            os.fsync(self._file.fileno())

    def text(self, known: int, samples: int) -> str:
        """What an interrupted calibration says."""
        if self._file is None:
            return "nothing was saved"
        words = f"{known} of {samples} scores are saved in {self._file.name}"
        return f"{words}; the same command goes on from there"


def identity_of_scores(bundle: Bundle, engine: Engine, options: LatentOptions) -> str:
    """Text that names everything the scores depend on. Raises SamplingError."""
    check_options(bundle.manifest.generator, options, bundle.views)
    return f"{bundle.manifest.bundle_id} {options} {engine.name} {engine.batch_sizes}"


@contextmanager
def open_saved_scores(bundle: Path, identity: str) -> Iterator[SavedScores]:
    """Locks and reads the file of scores beside `bundle`.

    It stays after an interruption and on a full disk, if it has scores to go on from. It is removed
    if the block succeeds, or is refused: the same command would be refused again.

    identity: from identity_of_scores. The file's name has its SHA-256, so that scores of other
    options are never reused. Raises ExportError if another process has the lock, OSError.
    """
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = bundle.resolve().with_name(f".{bundle.resolve().name}.{digest}.scores")
    try:
        file = path.open("a+b")
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror}); scores are not saved", file=sys.stderr)
        file = None
    if file is None:
        yield SavedScores()
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
                yield SavedScores(file)
            except BaseException as error:
                refused = isinstance(error, Exception) and not isinstance(error, OSError)
                useful = not refused and os.fstat(file.fileno()).st_size >= SCORE_BYTES
                raise
            finally:
                if not useful:
                    path.unlink(missing_ok=True)
    except OSError as error:  # the disk is full, or the file cannot be locked
        name_file(error, path)
        raise


def scores_from_engine(
    bundle: Bundle,
    engine: Engine,
    mapping: Mapping,
    options: LatentOptions,
    samples: int,
    saved: SavedScores,
) -> NDArray[np.float32]:
    """Scores of indices 0 to samples - 1, float32 [samples]; only those not saved are measured."""
    scores = np.empty(samples, np.float32)
    known = min(samples, len(saved.scores))
    scores[:known] = saved.scores[:known]
    batch = engine.batch_sizes[-1]
    generator = bundle.manifest.generator
    rows = (
        Mt19937Rows(options.seed, generator.z_dim) if options.latent_source == "mt19937" else None
    )
    progress = tqdm(total=samples, initial=known, desc="calibrate", unit="sample")
    with signals_held() as held, progress:
        for start in range(known, samples, batch):
            indices = np.arange(start, min(start + batch, samples), dtype=np.uint64)
            ws = ws_from_indices(mapping, generator, options, indices, rows, bundle.views)
            no_limits = np.full(len(ws), np.inf, np.float32)
            result = engine.run(ws, no_limits, ("uncertainty",))
            scores[start : start + len(ws)] = result.arrays["uncertainty"]
            saved.append(scores[start : start + len(ws)])
            progress.update(len(ws))
            held.end(saved.text(start + len(ws), samples))
    return scores


def quantiles_from_scores(scores: NDArray[np.float32]) -> list[float]:
    """Evenly spaced quantiles from the smallest score to the largest, as float32 values.

    There is one step per 4 scores, and at most 1024: 4096 scores give 1025 quantiles.
    """
    steps = max(1, min(MAX_LEVELS, len(scores) // SAMPLES_PER_LEVEL))
    levels = np.linspace(0, 1, steps + 1)
    return [shortest_float32(q) for q in np.quantile(scores.astype(np.float64), levels)]
