"""Bundle -> an engine that computes the score alone: no images, and no head but the scoring one.

Calibration uses it, to save time. The operators of the score stay as they are in the labeller, so
the scores are the same bits.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx.utils

from bundle.manifest import LABELLER
from bundle.open import Bundle
from engines.open import EngineOptions
from engines.ort import OrtEngine, default_batch_sizes, only_size, open_session
from engines.protocol import Engine
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
    return OrtEngine(bundle.manifest, session, batch_sizes, outputs=(UNCERTAINTY,))
