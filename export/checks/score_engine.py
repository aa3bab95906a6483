"""Bundle -> an engine that computes the score alone: no images, and no head but the scoring one.

Calibration uses it, to save time. The operators of the score stay as they are in the labeller, so
the scores are the same bits.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx.utils
import onnxruntime as ort
from numpy.typing import NDArray

from bundle.manifest import LABELLER, Manifest
from bundle.open import Bundle
from engines.open import EngineOptions
from engines.ort import default_batch_sizes, only_size, open_session, run_session
from engines.protocol import Engine, EngineResult
from engines.request import check_batch_sizes, check_request, padded_feed
from engines.result import result_from_arrays
from engines.signature import KEPT, SAMPLE, UNCERTAINTY


def open_score_engine(bundle: Bundle, options: EngineOptions) -> Engine:
    """An engine on the CPU whose only output is the uncertainty.

    Raises EngineOpenError, BundleError.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "score.onnx")
        inputs, outputs = ["ws", "max_uncertainty"], [UNCERTAINTY, SAMPLE, KEPT]
        onnx.utils.extract_model(bundle.file(LABELLER["float32"]), path, inputs, outputs)
        batch_sizes = options.batch_sizes or default_batch_sizes(bundle.manifest)
        session = open_session(path, options.threads, only_size(batch_sizes))
    return ScoreEngine(bundle.manifest, session, batch_sizes)


class ScoreEngine:
    """Engine protocol, on an ONNX Runtime session of the labeller's score."""

    def __init__(
        self, manifest: Manifest, session: ort.InferenceSession, batch_sizes: tuple[int, ...]
    ) -> None:
        self._manifest, self._session = manifest, session
        self._batch_sizes = batch_sizes
        check_batch_sizes(self._batch_sizes)

    @property
    def name(self) -> str:
        return "onnxruntime-cpu"

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return self._batch_sizes

    @property
    def outputs(self) -> tuple[str, ...]:
        return (UNCERTAINTY,)

    def run(
        self,
        ws: NDArray[np.float32],
        max_uncertainty: NDArray[np.float32],
        outputs: tuple[str, ...],
    ) -> EngineResult:
        """See engines.protocol.Engine. Raises EngineRunError, NotFiniteError."""
        check_request(self._manifest, self, ws, max_uncertainty, outputs)
        feed = padded_feed(self._batch_sizes, ws, max_uncertainty)
        raw = run_session(self._session, (UNCERTAINTY, SAMPLE, KEPT), feed)
        return result_from_arrays(raw, len(ws), max_uncertainty, outputs)

    def close(self) -> None:
        pass
