"""Bundle -> an engine that computes the score alone: no images, and no head but the scoring one.

Calibration uses it, to save time. The operators of the score stay as they are in the labeller, so
the scores are the same bits.
"""

import onnx.utils

from bundle.manifest import LABELLER
from bundle.open import Bundle
from engines.onnx_graph import OnnxGraph, graph_from_bundle
from engines.open import EngineOptions
from engines.ort import OrtEngine, default_batch_sizes, only_size, open_session
from engines.protocol import Engine
from engines.signature import KEPT, SAMPLE, UNCERTAINTY


def open_score_engine(bundle: Bundle, options: EngineOptions) -> Engine:
    """An engine on the CPU whose only output is the uncertainty.

    Raises EngineOpenError, BundleError.
    """
    graph = graph_from_bundle(bundle, LABELLER["float32"])
    batch_sizes = options.batch_sizes or default_batch_sizes(bundle.manifest)
    session = open_session(_score_graph(graph), options.threads, only_size(batch_sizes))
    return OrtEngine(bundle.manifest, session, batch_sizes, outputs=(UNCERTAINTY,))


def _score_graph(graph: OnnxGraph) -> OnnxGraph:
    """The part of a labeller that computes the score."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph.content))
    inputs, outputs = ["ws", "max_uncertainty"], [UNCERTAINTY, SAMPLE, KEPT]
    part = onnx.utils.Extractor(model).extract_model(inputs, outputs)
    onnx.checker.check_model(part)
    return OnnxGraph(graph.path, part.SerializeToString())
