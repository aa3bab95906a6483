"""Measures how far a TensorRT engine is from ONNX Runtime on the CPU in float32, and refuses
engines beyond the tolerance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bundle.manifest import GeneratorFacts
from engines.content import CONTENT, content_excess
from engines.errors import PlanDiffers
from engines.protocol import Engine, Mapping, Precision
from engines.sampling import default_options, ws_from_indices
from labelmint.predicate import Statistic

Arrays = dict[str, NDArray[Any]]  # by output name, each [n, ...]
SEED = 2**63  # far from the seeds that users choose


class PlanParity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Measured differences; None if the bundle has no such output."""

    reference: str  # engine compared with: "onnxruntime-cpu", float32
    batch_size: int  # each batch size has its own kernels
    samples: int  # samples compared
    image_max_steps: int  # largest difference in uint8 steps
    image_share_within_1: float  # share of values that differ by at most one step
    mask_mismatch_share: float | None  # share of pixels of another class, near-ties included
    uncertainty_max_excess: float | None  # max of |difference| / (1e-6 + 1e-5 |reference|)
    keypoints_p95_px: float | None  # 95th percentile, which leaves out peaks that are near-ties
    depth_max_relative: float | None  # relative to the sample's largest |depth|
    content_excess: float | None = None  # see engines.content.content_excess


@dataclass(frozen=True)
class PlanTolerance:
    """Limits for the fields of PlanParity: image_share_within_1 is a minimum, all others are
    maxima."""

    image_max_steps: int
    image_share_within_1: float
    mask_mismatch_share: float
    uncertainty_max_excess: float
    keypoints_p95_px: float
    depth_max_relative: float
    content_excess: float = 1.0


TOLERANCES: dict[Precision, PlanTolerance] = {
    # Sums in another order differ slightly, and near-ties of the ensemble magnify this.
    "float32": PlanTolerance(1, 1.0, 1e-3, 100.0, 0.01, 2e-3),
    # The tolerance of export for the float16 graph, widened for near-ties, which export leaves out.
    "float16": PlanTolerance(16, 0.9, 0.02, 1e4, 0.5, 0.02),
}


def parity_rows(mapping: Mapping, generator: GeneratorFacts, samples: int) -> NDArray[np.float32]:
    """The rows of w+ that engines are compared on, [samples, num_ws, w_dim]."""
    drawn = default_options(generator, SEED)
    return ws_from_indices(mapping, generator, drawn, np.arange(samples, dtype=np.uint64))


def parity_of_arrays(
    reference: str,
    expected: Arrays,
    found: Arrays,
    batch_size: int,
    columns: Sequence[Statistic],  # of content
) -> PlanParity:
    """Compares all outputs of two engines for the same rows, and the found content with the other
    found outputs."""
    steps = np.abs(expected["image"].astype(np.int16) - found["image"].astype(np.int16))
    return PlanParity(
        reference=reference,
        batch_size=batch_size,
        samples=len(steps),
        image_max_steps=int(steps.max()),
        image_share_within_1=float((steps <= 1).mean()),
        mask_mismatch_share=_measure(_mismatch_share, "mask", expected, found),
        uncertainty_max_excess=_measure(_max_excess, "uncertainty", expected, found),
        keypoints_p95_px=_measure(_p95_distance, "keypoints", expected, found),
        depth_max_relative=_measure(_max_relative, "depth", expected, found),
        content_excess=content_excess(found[CONTENT], found, columns) if columns else None,
    )


def refuse_difference(parity: PlanParity, precision: Precision) -> None:
    """Raises PlanDiffers if a difference is beyond the tolerance or NaN."""
    limits = TOLERANCES[precision]
    for name in PlanTolerance.__dataclass_fields__:
        value, limit = getattr(parity, name), getattr(limits, name)
        is_minimum = name == "image_share_within_1"
        if value is None or (value >= limit if is_minimum else value <= limit):
            continue
        bound = "at least" if is_minimum else "at most"
        raise PlanDiffers(
            f"the {precision} engine differs from {parity.reference} in batches of "
            f"{parity.batch_size}: {name} is {value:.4g}, it must be {bound} {limit:.4g}; the "
            "engine is not kept"
        )


def unfiltered_arrays(engine: Engine, ws: NDArray[np.float32]) -> Arrays:
    """All outputs of all rows of ws, and CONTENT if there is any, computed in full batches without
    the filter."""
    batch = engine.batch_sizes[-1]
    results = []
    for start in range(0, len(ws), batch):
        rows = ws[start : start + batch]
        keep_all = np.full(len(rows), np.inf, np.float32)
        result = engine.run(rows, keep_all, engine.outputs)
        content = {} if result.content is None else {CONTENT: result.content}
        results.append(result.arrays | content)
    return {name: np.concatenate([arrays[name] for arrays in results]) for name in results[0]}


def _measure(difference: Any, name: str, expected: Arrays, found: Arrays) -> float | None:
    return float(difference(expected[name], found[name])) if name in expected else None


def _mismatch_share(expected: NDArray[Any], found: NDArray[Any]) -> Any:
    return (expected != found).mean()


def _max_excess(expected: NDArray[Any], found: NDArray[Any]) -> Any:
    difference = np.abs(found.astype(np.float64) - expected)
    return (difference / (1e-6 + 1e-5 * np.abs(expected.astype(np.float64)))).max()


def _p95_distance(expected: NDArray[Any], found: NDArray[Any]) -> Any:
    return np.quantile(np.abs(expected - found)[..., :2].max(axis=-1), 0.95)


def _max_relative(expected: NDArray[Any], found: NDArray[Any]) -> Any:
    wide = expected.astype(np.float64)
    scale = np.maximum(np.abs(wide).max(axis=(1, 2), keepdims=True), np.finfo(np.float16).tiny)
    return (np.abs(found.astype(np.float64) - wide) / scale).max()
