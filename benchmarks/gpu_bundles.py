"""Bundles of random weights for measuring speed, without the parity check, which takes minutes at
these sizes."""

import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import torch

from benchmarks.gpu_cases import CASES, bundle_folder
from benchmarks.gpu_results import Results
from benchmarks.random_weights import write_weights
from bundle.manifest import LABELLER, MAPPING
from bundle.write import staged_folder, write_manifest
from export.bundle_from_weights import DTYPES, manifest_from_folder, quiet_exporter
from export.fused.bundle import write_fused_labeller
from export.graph.labeller import Labeller
from export.graph.to_onnx import half_by_float32, labeller_onnx, mapping_onnx
from export.weights import WeightFiles, weights_from_files

PART = "bundles"
STRIP_PIXELS = 1 << 15  # for both precisions, because TensorRT plans every strip


def main(folder: Path) -> None:
    results = Results(folder / "results.jsonl")
    for case in CASES:
        out = bundle_folder(folder, case)
        if out.exists():
            continue
        began = time.monotonic()
        _write(out, case)
        results.add(PART, case=case, seconds=round(time.monotonic() - began))


def _write(out: Path, case: str) -> None:
    with tempfile.TemporaryDirectory() as files:
        generator, interpreter = write_weights(Path(files), CASES[case])
        weights = weights_from_files(WeightFiles(generator, None, interpreter, None, None))
    with staged_folder(out, False) as folder, quiet_exporter():
        mapping_onnx(weights.generator.mapping, folder / MAPPING)
        for precision in DTYPES:
            labeller = Labeller(
                weights.generator, weights.interpreter, weights.spec, precision,
                strip_pixels=STRIP_PIXELS,
            )  # fmt: skip
            with half_by_float32():
                labeller_onnx(labeller, folder / LABELLER[precision])
        if find_spec("triton"):
            write_fused_labeller(folder, weights, [_capability()])
        write_manifest(folder, manifest_from_folder(folder, weights))


def _capability() -> str:
    """Compute capability of the local GPU, or of the GPU that the goals are for."""
    if not torch.cuda.is_available():
        return "9.0"
    return "{}.{}".format(*torch.cuda.get_device_capability())


if __name__ == "__main__":
    main(Path(sys.argv[2]))
