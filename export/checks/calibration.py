"""A bundle -> quantiles of its score over drawn samples, into its manifest.

Scores measured so far are kept beside the bundle until it ends, so that a kill loses little.
"""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BufferedRandom
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bundle.calibration import shortest_float32
from bundle.manifest import ScoreCalibration
from bundle.open import Bundle
from engines.protocol import Engine, Mapping
from engines.sampling import SamplingOptions, check_options, key_from_options, ws_from_indices
from export.errors import ExportError
from labelmint.latents import Mt19937Rows

BYTES = 4  # of a score


class KeptScores:
    """Scores of indices 0 to `len(scores) - 1`, and where those that follow are put."""

    def __init__(self, file: BufferedRandom | None = None) -> None:
        """Without a file nothing is kept."""
        self._file = file
        data = b"" if file is None else file.read()
        whole = len(data) - len(data) % BYTES  # a killed writer may leave a part of one
        self.scores: NDArray[np.float32] = np.frombuffer(data[:whole], "<f4").astype(np.float32)
        if file is not None:
            file.truncate(whole)
            file.seek(whole)

    def append(self, scores: NDArray[np.float32]) -> None:
        """Puts the next ones on the disk."""
        if self._file is not None:
            self._file.write(scores.astype("<f4").tobytes())
            self._file.flush()
            os.fsync(self._file.fileno())


@contextmanager
def kept_scores(bundle: Path, identity: str) -> Iterator[KeptScores]:
    """Those of the same `identity`, which is all that decides them; removed when the block ends
    well. Raises ExportError while another process measures them."""
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    path = bundle.resolve().with_name(f".{bundle.resolve().name}.{digest}.scores")
    try:
        file = path.open("a+b")
    except OSError as error:
        print(f"{path} cannot be written ({error.strerror}); scores are not kept", file=sys.stderr)
        file = None
    if file is None:
        yield KeptScores()
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ExportError(f"{bundle} is being calibrated for these options already") from None
        file.seek(0)
        yield KeptScores(file)
        path.unlink(missing_ok=True)


MAX_LEVELS = 1024  # steps between quantiles
SAMPLES_PER_LEVEL = 4


def calibration_from_engine(
    bundle: Bundle,
    engine: Engine,
    mapping: Mapping,
    options: SamplingOptions,
    samples: int,
    keep: bool = False,  # scores beside the bundle until all are there, to go on after a kill
) -> ScoreCalibration:
    """Scores indices 0 to samples - 1, drawn exactly as the service draws them.

    Raises ExportError for a bundle without a score, SamplingError, EngineError.
    """
    refuse_without_score(bundle)
    check_options(bundle.manifest.generator, options, bundle.views)
    identity = f"{bundle.manifest.bundle_id} {options} {engine.name} {engine.batch_sizes}"
    with kept_scores(bundle.path, identity) if keep else nullcontext(KeptScores()) as kept:
        scores = scores_from_engine(bundle, engine, mapping, options, samples, kept)
    return ScoreCalibration(
        options=key_from_options(options),
        seed=options.seed,
        samples=samples,
        quantiles=quantiles_from_scores(scores),
    )


def refuse_without_score(bundle: Bundle) -> None:
    """Raises ExportError when there is nothing to calibrate."""
    if bundle.manifest.heads is None or bundle.manifest.heads.score_source is None:
        raise ExportError(
            f"{bundle.path} has no score_source, so there is nothing to calibrate; use "
            "--calibrate 0"
        )


def scores_from_engine(
    bundle: Bundle,
    engine: Engine,
    mapping: Mapping,
    options: SamplingOptions,
    samples: int,
    kept: KeptScores,
) -> NDArray[np.float32]:
    """Uncertainties of indices 0 to samples - 1, float32 [samples]; those that are kept are not
    measured again."""
    scores = np.empty(samples, np.float32)
    known = min(samples, len(kept.scores))
    scores[:known] = kept.scores[:known]
    batch = engine.batch_sizes[-1]
    generator = bundle.manifest.generator
    rows = (
        Mt19937Rows(options.seed, generator.z_dim) if options.latent_source == "mt19937" else None
    )
    with tqdm(total=samples, initial=known, desc="calibrate", unit="sample") as progress:
        for start in range(known, samples, batch):
            indices = np.arange(start, min(start + batch, samples), dtype=np.uint64)
            ws = ws_from_indices(mapping, generator, options, indices, rows, bundle.views)
            everything = np.full(len(ws), np.inf, np.float32)
            result = engine.run(ws, everything, ("uncertainty",))
            scores[start : start + len(ws)] = result.arrays["uncertainty"]
            kept.append(scores[start : start + len(ws)])
            progress.update(len(ws))
    return scores


def quantiles_from_scores(scores: NDArray[np.float32]) -> list[float]:
    """Evenly spaced quantiles from the smallest score to the largest, as float32 values."""
    steps = max(1, min(MAX_LEVELS, len(scores) // SAMPLES_PER_LEVEL))
    levels = np.linspace(0, 1, steps + 1)
    return [shortest_float32(q) for q in np.quantile(scores.astype(np.float64), levels)]
