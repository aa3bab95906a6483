"""Masks alone, on the CPU: the part of a bundle's graph that they need, without images, other heads
and the filter. For fits, which draw many samples and look at nothing else.
"""

import numpy as np
import onnx.utils
from numpy.typing import NDArray

from bundle.manifest import LABELLER
from bundle.open import Bundle
from engines.errors import EngineOpenError
from engines.onnx_graph import OnnxGraph, graph_from_bundle
from engines.open import EngineOptions
from engines.ort import default_batch_sizes, only_size, open_session, run_options, run_session
from engines.request import RunContract

Masks = NDArray[np.uint8]  # [n, H, W]
MASK = "mask"


class MaskEngine:
    """The mask of each row of w+; the bits of the whole graph's. One thread at a time."""

    def __init__(self, bundle: Bundle, options: EngineOptions) -> None:
        """Raises EngineOpenError, also for a bundle without masks, BundleError."""
        graph = graph_from_bundle(bundle, LABELLER["float32"])
        self.batch_sizes = options.batch_sizes or default_batch_sizes(bundle.manifest)
        self._contract = RunContract(bundle.manifest, self.batch_sizes, (MASK,))
        part, self._output = _mask_graph(graph)
        self._session = open_session(part, options.threads, only_size(self.batch_sizes))
        self._run_options = run_options()

    def run(self, ws: NDArray[np.float32]) -> Masks:
        """Masks of rows of w+ [n, num_ws, w_dim], at most a batch. Raises EngineRunError."""
        no_limit = np.full(len(ws), np.inf, np.float32)
        feed = {"ws": self._contract.feed(ws, no_limit, (MASK,))["ws"]}
        raw = run_session(self._session, (self._output,), feed, self._run_options)
        return raw[self._output][: len(ws)].astype(np.uint8)


def _mask_graph(graph: OnnxGraph) -> tuple[OnnxGraph, str]:
    """The part of a labeller that computes masks, and the name of its output: class ids as floats,
    in input order, which the labeller then sorts and converts."""
    model = onnx.load_from_string(graph.content)
    makers = {output: node for node in model.graph.node for output in node.output}
    name = MASK
    while name in makers and makers[name].op_type in ("Cast", "Clip"):
        name = makers[name].input[0]
    if name not in makers or makers[name].op_type != "Gather":
        raise EngineOpenError(
            f"{graph.path} has no mask that is sorted at the end; export the bundle again"
        )
    name = makers[name].input[0]
    part = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model(
        ["ws"], [name]
    )
    onnx.checker.check_model(part)
    return OnnxGraph(graph.path, part.SerializeToString()), name
